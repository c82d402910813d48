"""The Flower client: translates messages to tensors and back, and calls the library.

Each message names the client it is for and carries the model's architecture, the training settings and the seed. A
simulation's node plays that client, and reads its prepared examples from a folder that the server names. A deployed
client reads nothing but its own data, in the folder ``data-path`` of its SuperNode's configuration.
"""

import functools
import json
import logging
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from torch import nn

from tracefl.common.seeds import derive_seed
from tracefl.errors import ConfigError
from tracefl.federation.messages import ARRAYS, CLIENT, CLIENT_ID, CONFIG, LOSS, METRICS, NUM_EXAMPLES, client_id_of
from tracefl.federation.own_data import own_examples
from tracefl.learning.datasets import load_examples
from tracefl.learning.examples import Examples
from tracefl.learning.faults import Fault
from tracefl.learning.faults.updates import add_update_noise, ride_free
from tracefl.learning.models import ModelSpec, build_model
from tracefl.learning.privacy.accounting import client_dp_sgd
from tracefl.learning.privacy.settings import DpSgdSettings
from tracefl.learning.settings import TrainingSettings
from tracefl.learning.training import train

log = logging.getLogger(__name__)

app = ClientApp()


@app.query()
def identify(message: Message, context: Context) -> Message:
    """Reply with a deployed client's number of examples of each class, and its id if the SuperNode's config has one.

    Raises:
        ConfigError: The SuperNode has no data of its own.
        DataError: The data cannot be read.
    """
    job = json.loads(str(message.content.config_records[CONFIG]["job"]))
    client_id = str(context.node_config.get("partition-id", ""))
    counts = _own_examples(context, job).label_counts(job["num_classes"]).tolist()
    who = ConfigRecord({CLIENT_ID: client_id, "label-counts": counts})
    return Message(RecordDict({CLIENT: who}), reply_to=message)


@contextmanager
def _forgets_model_of_failure() -> Iterator[None]:
    """Let the next client start from a new model where one fails, which may leave half of a batch's gradients on it."""
    try:
        yield
    except BaseException:
        _model.cache_clear()
        raise


@app.train()
@_forgets_model_of_failure()
def train_client(message: Message, context: Context) -> Message:
    """Train the global model on the client's examples and reply with its weights."""
    config = message.content.config_records[CONFIG]
    job = json.loads(str(config["job"]))
    client_id = client_id_of(message)
    server_round = int(str(config["server-round"]))
    torch.set_num_threads(job["threads"])
    model = _model(job["model"])
    global_weights = message.content.array_records[ARRAYS].to_torch_state_dict()
    model.load_state_dict(global_weights)
    fault = _active_fault(job["fault"], client_id, server_round)
    deployed = "num-partitions" not in context.node_config  # set on a simulation's nodes
    if deployed:
        examples = _own_examples(context, job["data"])
    else:
        name = f"client-{client_id}-faulty" if fault is not None and fault.in_examples else f"client-{client_id}"
        examples = load_examples(Path(job["data_path"]) / f"{name}.safetensors")
    training = TrainingSettings(**job["training"])
    device = str(context.node_config.get("device", job["device"]))
    dp_sgd = None if job["dp_sgd"] is None else DpSgdSettings(**job["dp_sgd"])
    # The server knows the root seed but must not be able to compute the noise that hides the client's examples.
    private = deployed and dp_sgd is not None
    options: dict[str, Any] = {
        "seed": secrets.randbits(63) if private else derive_seed(job["seed"], "train", server_round, client_id),
        "device": device,
        "proximal_mu": float(str(config.get("proximal-mu", 0.0))),
    }
    fault_seed = derive_seed(job["seed"], "fault", server_round, client_id)
    if fault is not None and fault.name == "free_rider":
        assert fault.scale is not None
        loss = ride_free(model, examples, training.batch_size, fault.scale, fault_seed, device)
    elif dp_sgd is not None:
        from tracefl.learning.privacy.dp_sgd import train_privately  # imports Opacus, which other clients do not need

        privacy = client_dp_sgd(dp_sgd, training, len(examples), job["num_rounds"])
        loss = train_privately(model, examples, training, privacy, **options)
    else:
        loss = train(model, examples, training, **options)
    if fault is not None and fault.name == "weight_noise":
        assert fault.scale is not None
        add_update_noise(model, global_weights, fault.scale, fault_seed)
    log.debug("round=%d client=%s examples=%d loss=%.4f", server_round, client_id, len(examples), loss)
    arrays = ArrayRecord({name: tensor.cpu() for name, tensor in model.state_dict().items()})
    who = ConfigRecord({CLIENT_ID: client_id})  # Flower would average it in a MetricRecord
    metrics = MetricRecord({NUM_EXAMPLES: len(examples), LOSS: loss})
    return Message(RecordDict({ARRAYS: arrays, METRICS: metrics, CLIENT: who}), reply_to=message)


def _own_examples(context: Context, job: dict[str, Any]) -> Examples:
    """Read the data of a deployed client."""
    data_path = context.node_config.get("data-path")
    if data_path is None:
        raise ConfigError("""this SuperNode has no data; start it with --node-config 'data-path="FOLDER"'""")
    return own_examples(str(data_path), job)


def _active_fault(text: str | None, client_id: str, server_round: int) -> Fault | None:
    """Return the run's fault if it is active for the client in this round."""
    fault = None if text is None else Fault.from_json(text)
    return fault if fault is not None and fault.is_active(client_id, server_round) else None


@functools.lru_cache(maxsize=1)
def _model(spec: str) -> nn.Module:
    """Build a model, once per worker; every message overwrites all of its weights."""
    return build_model(ModelSpec.from_json(spec))
