"""Everything that a run needs before its first round, and what of it is kept for later questions."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from tracefl.config import Settings
from tracefl.datasets import FederatedData, RawDataset, load_source, prepare, save_examples, training_texts
from tracefl.errors import DataError
from tracefl.faults import InjectedFault, Vocabulary, inject
from tracefl.models import ModelSpec, TextEncoder, build_text_encoder, check_max_tokens, model_spec

_TOKENIZER_TEXTS = 20_000  # documents that a tokenizer is trained on, at most


@dataclass(frozen=True)
class Prepared:
    """What a run starts from.

    Attributes:
        data: The clients' and the server's examples, with their true labels.
        spec: The architecture.
        encoder: None for images.
        fault: What some of the clients do wrong, and the examples that they then train on; None without a fault.
    """

    data: FederatedData
    spec: ModelSpec
    encoder: TextEncoder | None
    fault: InjectedFault | None


def prepare_run(settings: Settings) -> Prepared:
    """Load and partition the data and settle the architecture; nothing is written.

    Raises:
        ConfigError: The model cannot be made as asked.
        DataError: The data cannot be read, too few clients can take part, or the fault does not fit the data.
    """
    config = settings.config
    raw = load_source(settings.dataset, config["seed"])
    encoder = _encoder(settings, raw)
    spec = model_spec(settings.model, raw.num_classes, encoder)
    if settings.privacy.is_dp_sgd:
        spec = replace(spec, norm="group")
    max_tokens = settings.dataset.max_tokens
    if encoder is not None:
        check_max_tokens(spec, max_tokens)

    def encode(texts: list[str]) -> dict[str, Tensor]:
        assert encoder is not None
        return encoder.encode(texts, max_tokens)

    data = prepare(
        raw,
        settings.dataset,
        settings.partition,
        config["num_clients"],
        settings.training.batch_size,
        config["seed"],
        encode if encoder is not None else None,
    )
    if config["clients_per_round"] > len(data.clients):
        raise DataError(
            f"clients_per_round={config['clients_per_round']}, and only {len(data.clients)} of "
            f"{config['num_clients']} clients hold a full batch of {settings.training.batch_size}; lower "
            "clients_per_round, batch_size or num_clients, or raise dirichlet_alpha"
        )
    return Prepared(data, spec, encoder, _fault(settings, data, encoder))


def save_inputs(folder: Path, prepared: Prepared) -> None:
    """Write the server's examples, label counts, architecture, tokenizer and fault into a run's folder."""
    data = prepared.data
    save_examples(folder / "server.safetensors", data.server)
    (folder / "model.json").write_text(prepared.spec.to_json() + "\n")
    counts = {"label_names": list(data.label_names), "label_counts": data.label_counts.tolist()}
    (folder / "label_counts.json").write_text(json.dumps(counts) + "\n")
    if prepared.encoder is not None:
        prepared.encoder.save(folder / "tokenizer")
    if prepared.fault is not None:
        (folder / "fault.json").write_text(json.dumps(prepared.fault.describe()) + "\n")


def _fault(settings: Settings, data: FederatedData, encoder: TextEncoder | None) -> InjectedFault | None:
    if settings.fault.is_none:
        return None
    vocabulary = None if encoder is None else Vocabulary(encoder.vocab_size, encoder.special_ids)
    return inject(settings.fault, data.clients, data.num_classes, vocabulary, settings.config["seed"])


def _encoder(settings: Settings, raw: RawDataset) -> TextEncoder | None:
    if raw.kind != "text":
        return None
    return build_text_encoder(settings.model, lambda: training_texts(raw, _TOKENIZER_TEXTS))
