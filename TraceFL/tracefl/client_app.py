"""The Flower client: translates messages to tensors and back, and calls the library.

A client is known by its partition id. What it needs comes with the message (the model's architecture, the training
settings, seed) and from its folder of prepared examples.
"""

import functools
import json
import logging
from pathlib import Path

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from torch import nn

from tracefl.datasets import load_examples
from tracefl.faults import Fault
from tracefl.faults.updates import add_update_noise, ride_free
from tracefl.models import ModelSpec, build_model
from tracefl.privacy import PrivacySettings
from tracefl.privacy.accounting import client_dp_sgd
from tracefl.seeds import derive_seed
from tracefl.training import TrainingSettings, train

log = logging.getLogger(__name__)

app = ClientApp()


def client_id_of(context: Context) -> str:
    """Return the client's id: its partition id, as text."""
    return str(context.node_config["partition-id"])


@app.query()
def identify(message: Message, context: Context) -> Message:
    """Answer with the client's id, so that the server can tell which node is which client."""
    return Message(RecordDict({"client": _who(context)}), reply_to=message)


@app.train()
def train_client(message: Message, context: Context) -> Message:
    """Train the global weights on the client's examples and answer with the client's weights."""
    config = message.content.config_records["config"]
    job = json.loads(str(config["job"]))
    client_id = client_id_of(context)
    server_round = int(str(config["server-round"]))
    torch.set_num_threads(job["threads"])
    model = _model(job["model"])
    global_weights = message.content.array_records["arrays"].to_torch_state_dict()
    model.load_state_dict(global_weights)
    # A deployed client has a folder of its own; in a simulation the server names one that all can read.
    folder = Path(str(context.node_config.get("data-path", job["data_path"])))
    fault = _active_fault(job["fault"], client_id, server_round)
    name = f"client-{client_id}-faulty" if fault is not None and fault.in_examples else f"client-{client_id}"
    examples = load_examples(folder / f"{name}.safetensors")
    training = TrainingSettings(**job["training"])
    options = {
        "seed": derive_seed(job["seed"], "train", server_round, client_id),
        "device": job["device"],
        "proximal_mu": float(str(config.get("proximal-mu", 0.0))),
    }
    privacy = PrivacySettings(**job["privacy"])
    fault_seed = derive_seed(job["seed"], "fault", server_round, client_id)
    if fault is not None and fault.name == "free_rider":
        assert fault.scale is not None
        loss = ride_free(model, examples, training.batch_size, fault.scale, fault_seed, job["device"])
    elif privacy.is_dp_sgd:
        from tracefl.privacy.dp_sgd import train_privately  # brings Opacus: other clients do not wait for it

        dp_sgd = client_dp_sgd(privacy, training, len(examples), job["num_rounds"])
        loss = train_privately(model, examples, training, dp_sgd, **options)
    else:
        loss = train(model, examples, training, **options)
    if fault is not None and fault.name == "weight_noise":
        assert fault.scale is not None
        add_update_noise(model, global_weights, fault.scale, fault_seed)
    log.debug("round=%d client=%s examples=%d loss=%.4f", server_round, client_id, len(examples), loss)
    arrays = ArrayRecord({name: tensor.cpu() for name, tensor in model.state_dict().items()})
    metrics = MetricRecord({"num-examples": len(examples), "train-loss": loss})
    return Message(RecordDict({"arrays": arrays, "metrics": metrics, "client": _who(context)}), reply_to=message)


def _active_fault(text: str | None, client_id: str, server_round: int) -> Fault | None:
    """Return the run's fault where the client has it in this round."""
    fault = None if text is None else Fault.from_json(text)
    return fault if fault is not None and fault.is_active(client_id, server_round) else None


def _who(context: Context) -> ConfigRecord:
    """Return who answers; in a MetricRecord Flower would average it."""
    return ConfigRecord({"client-id": client_id_of(context)})


@functools.lru_cache(maxsize=1)
def _model(spec: str) -> nn.Module:
    """Build a model once a worker; every message overwrites all of its weights."""
    return build_model(ModelSpec.from_json(spec))
