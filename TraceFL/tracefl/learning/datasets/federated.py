"""Prepare a data set for a federation: what each client trains on and what the server tests on."""

import logging
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tracefl.common.seeds import derive_seed
from tracefl.conf.constraints import Count, read_value
from tracefl.errors import ConfigError, DataError
from tracefl.learning.datasets.client_rows import sample_rows, select_rows
from tracefl.learning.datasets.partitioning import PartitionSettings, partition_rows
from tracefl.learning.datasets.settings import DatasetSettings
from tracefl.learning.datasets.sources import RawDataset, Rows, Split
from tracefl.learning.datasets.transforms import images_to_tensor
from tracefl.learning.examples import PIXELS, Examples

Encode = Callable[[list[str]], dict[str, Tensor]]
"""Encodes N texts as token tensors ``(N, T)``, keyed by the name of the model's argument."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FederatedData:
    """A data set divided among clients and a server.

    Attributes:
        clients: Client id (its partition id) to its training examples, in numeric order of the ids; only clients that
            take part.
        server: Test examples.
        label_counts: ``(num_clients, num_classes)`` int64, number of training examples that each client keeps; zeros
            for a client that does not take part.
        label_names: Name of each class.
        kind: ``image`` or ``text``.
        notes: What was chosen or left out without being asked for, one line each.
    """

    clients: dict[str, Examples]
    server: Examples
    label_counts: Tensor
    label_names: tuple[str, ...]
    kind: str
    notes: tuple[str, ...]

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.label_names)


def prepare(
    raw: RawDataset,
    settings: DatasetSettings,
    partition: PartitionSettings,
    num_clients: int,
    batch_size: int,
    seed: int,
    encode: Encode | None,
) -> FederatedData:
    """Divide a data set among clients, drop what the paper drops, and decode the rest.

    Args:
        raw: The data set.
        settings: Its configuration: limits, image size, mean and std.
        partition: How the training split is divided.
        num_clients: Number of clients; their ids are "0" to ``num_clients - 1``.
        batch_size: Examples in a batch; a client with less than one batch does not take part.
        seed: The run's root seed.
        encode: The model's tokenizer, for text; ``None`` for images.

    Raises:
        ConfigError: A number is below 1, or text comes without a tokenizer.
        DataError: The data cannot be divided this way, or no client has a full batch.
    """
    read_value(Count, batch_size, "batch_size")
    if raw.kind == "text" and encode is None:
        raise ConfigError(f"data set {raw.name!r} is text but the model reads images; choose a text model, or images")
    parts = partition_rows(raw.train.labels, num_clients, partition, seed)
    selection = select_rows(raw.train.labels, parts, settings, batch_size, seed)
    if not selection.rows:
        raise DataError(
            f"none of {num_clients} clients has a full batch of {batch_size} examples of labels with at least "
            f"{settings.min_examples_per_label} examples on it; lower num_clients, batch_size or "
            "dataset.min_examples_per_label, or change dirichlet_alpha"
        )
    server, server_notes = prepare_server(raw, settings, seed, encode)
    clients = {
        client_id: _examples(raw, raw.train, rows, settings, encode) for client_id, rows in selection.rows.items()
    }
    label_counts = torch.zeros(num_clients, raw.num_classes, dtype=torch.int64)
    for client_id, examples in clients.items():
        label_counts[int(client_id)] = examples.label_counts(raw.num_classes)
    log.debug("dataset=%s label_counts=%s", raw.name, label_counts.tolist())
    notes = (*raw.notes, *selection.notes, *server_notes)
    return FederatedData(clients, server, label_counts, raw.label_names, raw.kind, notes)


def prepare_server(
    raw: RawDataset, settings: DatasetSettings, seed: int, encode: Encode | None
) -> tuple[Examples, tuple[str, ...]]:
    """Return the decoded examples that the server tests on, and notes on what was left out, one line each.

    The arguments are those of ``prepare``.
    """
    rows = sample_rows(np.arange(len(raw.test)), settings.max_server_examples, derive_seed(seed, "server_examples"))
    left_out = len(rows) < len(raw.test)
    notes = (f"server keeps a sample of {len(rows)} of {len(raw.test)} test examples",) if left_out else ()
    return _examples(raw, raw.test, rows, settings, encode), notes


def prepare_client(
    raw: RawDataset, settings: DatasetSettings, batch_size: int, seed: int, encode: Encode | None
) -> Examples:
    """Decode the training examples of a client that owns the whole training split.

    The arguments are those of ``prepare``.

    Raises:
        DataError: The client has less than one full batch.
    """
    for note in raw.notes:
        log.warning("data: %s", note)
    selection = select_rows(raw.train.labels, [np.arange(len(raw.train))], settings, batch_size, seed)
    if not selection.rows:
        raise DataError(
            f"{len(raw.train)} examples hold no full batch of {batch_size} of labels with at least "
            f"{settings.min_examples_per_label} examples; give more data, or lower batch_size or "
            "dataset.min_examples_per_label"
        )
    return _examples(raw, raw.train, selection.rows["0"], settings, encode)


def training_texts(raw: RawDataset, limit: int) -> list[str]:
    """Return at most ``limit`` texts of the training split, evenly spaced: the same in every run.

    Raises:
        DataError: The data set is not text.
    """
    if raw.kind != "text":
        raise DataError(f"data set {raw.name!r} is of kind {raw.kind!r}, which has no texts; choose a data set of text")
    count = min(limit, len(raw.train))
    return list(raw.train.read(np.arange(count) * len(raw.train) // max(count, 1)))


def _examples(raw: RawDataset, split: Split, rows: Rows, settings: DatasetSettings, encode: Encode | None) -> Examples:
    """Decode the chosen rows of a split."""
    labels, numbers = torch.from_numpy(split.labels[rows]), torch.from_numpy(rows)
    contents = split.read(rows)
    if encode is not None and raw.kind == "text":
        features = {name: tensor.to(torch.int32) for name, tensor in encode(list(contents)).items()}  # (N, T)
        return Examples(features, labels, numbers)
    pixels = images_to_tensor(contents, settings.image_size)  # (N, 3, image_size, image_size)
    return Examples({PIXELS: pixels}, labels, numbers, tuple(settings.mean), tuple(settings.std))
