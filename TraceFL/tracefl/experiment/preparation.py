"""Everything that a run needs before its first round, and what is kept of it for later questions."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tracefl.common.paths import remove
from tracefl.common.text_files import encoded
from tracefl.errors import ConfigError, DataError
from tracefl.federation.own_data import check_label_names, client_job, load_split, with_client
from tracefl.federation.participation import check_left
from tracefl.federation.plan import Joined
from tracefl.learning.datasets import (
    Encode,
    FederatedData,
    RawDataset,
    load_source,
    prepare,
    prepare_server,
    save_examples,
    training_texts,
)
from tracefl.learning.faults import Fault, InjectedFault, Vocabulary, inject
from tracefl.learning.models import ModelSpec, TextEncoder, build_text_encoder, check_max_tokens, model_spec
from tracefl.learning.privacy.settings import DpSgdSettings
from tracefl.records.folder import RunFolder
from tracefl.records.run import StoredRun
from tracefl.records.settings import Settings

_TOKENIZER_TEXTS = 20_000  # maximum number of documents that a tokenizer is trained on


@dataclass(frozen=True)
class Prepared:
    """What a run starts from.

    Attributes:
        data: The clients' and the server's examples, with their true labels.
        spec: The architecture.
        encoder: Encoder of texts; None for images.
        fault: What some clients do wrong, and the examples they train on as a result; None without a fault.
        client_job: How deployed clients read their own data; None in a simulation.
        keys: Client id to the fingerprint of its SuperNode's key, of deployed clients.
    """

    data: FederatedData
    spec: ModelSpec
    encoder: TextEncoder | None
    fault: InjectedFault | None
    client_job: Mapping[str, Any] | None = None
    keys: Mapping[str, str] = field(default_factory=dict)

    @property
    def truth(self) -> Fault | None:
        """What some clients do wrong, None without a fault."""
        return None if self.fault is None else self.fault.truth

    def with_client(self, client_id: str, client: Joined) -> "Prepared":
        """Return a copy with a new client, or new numbers of examples by class for an existing one."""
        label_counts = with_client(self.data.label_counts, client_id, client.counts)
        data = replace(self.data, label_counts=label_counts)
        return replace(self, data=data, keys={**self.keys, client_id: client.key})


def prepare_run(settings: Settings) -> Prepared:
    """Load and partition the data and determine the architecture; nothing is written.

    Raises:
        ConfigError: The model cannot be made as configured.
        DataError: The data cannot be read, too few clients can take part, or the fault does not fit the data.
    """
    raw = load_source(settings.dataset, settings.seed)
    spec, encoder, encode = architecture(settings, raw)
    data = prepare(
        raw,
        settings.dataset,
        settings.partition,
        settings.num_clients,
        settings.training.batch_size,
        settings.seed,
        encode,
    )
    if settings.clients_per_round > len(data.clients):
        raise DataError(
            f"clients_per_round={settings.clients_per_round}, and only {len(data.clients)} of "
            f"{settings.num_clients} clients hold a full batch of {settings.training.batch_size}; lower "
            "clients_per_round, batch_size or num_clients, or raise dirichlet_alpha"
        )
    check_left(settings, [int(client) for client in data.clients])
    return Prepared(data, spec, encoder, _fault(settings, data, encoder))


def prepare_deployed(
    settings: Settings, gather: Callable[[int, str, Mapping[str, str]], Mapping[str, Joined]]
) -> Prepared:
    """Load the server's test set, determine the architecture, and wait for the clients; nothing is written.

    Args:
        settings: ``num_clients`` is the number of clients to wait for, ``dataset`` the server's data.
        gather: Waits for a number of clients, given how they must read their data, as JSON, and the keys of the
            clients of the run's earlier sessions, by client id. Returns the clients by id.

    Raises:
        ConfigError: A fault is configured, or the model cannot be made as configured.
        DataError: The data cannot be read.
        RecordError: The run to be resumed is damaged.
    """
    dataset = settings.dataset
    if settings.fault is not None:
        raise ConfigError(f"fault={settings.fault.name}: faults are injected in simulations only; leave fault=none")
    raw = load_split(dataset, "test", settings.seed)
    check_label_names(dataset, raw.label_names)
    spec, encoder, encode = architecture(settings, raw)
    server, notes = prepare_server(raw, dataset, settings.seed, encode)
    job = client_job(dataset, raw.label_names, settings.batch_size, settings.seed, encoder)
    nobody = torch.zeros(0, raw.num_classes, dtype=torch.int64)
    data = FederatedData({}, server, nobody, raw.label_names, raw.kind, (*raw.notes, *notes))
    begun = settings.resume and (settings.folder / "label_counts.json").exists()
    keys = StoredRun(settings.folder).keys if begun else {}
    prepared = Prepared(data, spec, encoder, None, job, keys)
    for client_id, client in gather(settings.num_clients, json.dumps(job), keys).items():
        prepared = prepared.with_client(client_id, client)
    return prepared


def save_clients(folder: Path, prepared: Prepared) -> Prepared:
    """Write the clients' examples where simulated clients read them, into a fresh folder.

    Returns:
        A copy without those examples, which take most of the memory.
    """
    remove(folder)  # left by a session that was killed
    folder.mkdir(mode=0o700)
    for client_id, examples in prepared.data.clients.items():
        save_examples(folder / f"client-{client_id}.safetensors", examples)
    data, fault = replace(prepared.data, clients={}), prepared.fault
    if fault is None:
        return replace(prepared, data=data)
    for client_id, examples in fault.examples.items():  # used from the fault's first round on
        save_examples(folder / f"client-{client_id}-faulty.safetensors", examples)
    return replace(prepared, data=data, fault=replace(fault, examples={}))


def save_inputs(folder: RunFolder, prepared: Prepared) -> None:
    """Write the server's examples, label counts, architecture, tokenizer and fault into a run's folder."""
    draft = folder.path / ".inputs.partial"
    remove(draft)
    draft.mkdir()
    save_examples(draft / "server.safetensors", prepared.data.server)
    texts = {"model.json": prepared.spec.to_json() + "\n", "label_counts.json": _label_counts(prepared)}
    if prepared.fault is not None:
        texts["fault.json"] = json.dumps(prepared.fault.describe()) + "\n"
    for name, text in texts.items():
        (draft / name).write_bytes(encoded(text))
    if prepared.encoder is not None:
        prepared.encoder.save(draft / "tokenizer")
    folder.put(draft)


def save_label_counts(folder: RunFolder, prepared: Prepared) -> None:
    """Write the clients' numbers of examples by class; where they have their own data, also that and their keys."""
    folder.write("label_counts.json", _label_counts(prepared))


def _label_counts(prepared: Prepared) -> str:
    data, deployed = prepared.data, prepared.client_job is not None
    counts = {
        "label_names": list(data.label_names),
        "label_counts": data.label_counts.tolist(),
        **({"deployed": True, "keys": dict(prepared.keys)} if deployed else {}),
    }
    return json.dumps(counts) + "\n"


def architecture(settings: Settings, raw: RawDataset) -> tuple[ModelSpec, TextEncoder | None, Encode | None]:
    """Return the model's architecture, and for text its tokenizer and the function that applies it.

    Raises:
        ConfigError: The model cannot be made as configured, or its tokenizer cannot be fetched.
    """
    encoder = _encoder(settings, raw)
    spec = model_spec(settings.model, raw.num_classes, encoder)
    if isinstance(settings.privacy, DpSgdSettings):
        spec = replace(spec, norm="group")
    if encoder is None:
        return spec, None, None
    max_tokens = settings.dataset.max_tokens
    check_max_tokens(spec, max_tokens)

    def encode(texts: list[str]) -> dict[str, Tensor]:
        return encoder.encode(texts, max_tokens)

    return spec, encoder, encode


def _fault(settings: Settings, data: FederatedData, encoder: TextEncoder | None) -> InjectedFault | None:
    if settings.fault is None:
        return None
    vocabulary = None if encoder is None else Vocabulary(encoder.vocab_size, encoder.special_ids)
    return inject(settings.fault, data.clients, data.num_classes, vocabulary, settings.seed)


def _encoder(settings: Settings, raw: RawDataset) -> TextEncoder | None:
    if raw.kind != "text":
        return None
    return build_text_encoder(settings.model, lambda: training_texts(raw, _TOKENIZER_TEXTS))
