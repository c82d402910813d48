"""Data in a deployment: each client reads its own folder and the server its test set; nothing is partitioned."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tracefl.conf.constraints import read
from tracefl.errors import ConfigError
from tracefl.learning.datasets import DatasetSettings, RawDataset, load_source, prepare_client
from tracefl.learning.datasets.hub import hub_split
from tracefl.learning.examples import Examples
from tracefl.learning.models import TextEncoder

SOURCES = ("hub", "medmnist")
"""Sources that read files from a folder."""


def load_split(settings: DatasetSettings, split: str, seed: int) -> RawDataset:
    """Open one split of a data set: clients need only ``train``, the server only ``test``.

    Raises:
        ConfigError: The source does not read a folder, or its columns are not named.
        DataError: The data cannot be read.
    """
    if settings.source not in SOURCES:
        raise ConfigError(
            f"dataset={settings.name} comes with the package and is no client's own; in a deployment choose a data set "
            "of files, such as dataset=mnist or dataset=hub"
        )
    return hub_split(settings, split) if settings.source == "hub" else load_source(settings, seed)


def check_label_names(settings: DatasetSettings, names: Sequence[str]) -> None:
    """Check that clients number the classes as the server does.

    Raises:
        ConfigError: The labels were found in the server's files, are numbers, and are not 0, 1, ...
    """
    numbers = all(name.isdecimal() for name in names)
    if settings.label_names is None and numbers and [int(name) for name in names] != list(range(len(names))):
        raise ConfigError(
            f"the server's labels are {', '.join(names)}, and clients with others would number them otherwise; name "
            "the classes 0, 1, ... in dataset.label_names, in the order of their numbers"
        )


def client_job(
    settings: DatasetSettings, label_names: Sequence[str], batch_size: int, seed: int, encoder: TextEncoder | None
) -> dict[str, Any]:
    """Return JSON-serializable instructions for a client to read its data the way the server reads its own."""
    shared = replace(settings, path=None, root=None, label_names=tuple(label_names))  # without the server's paths
    return {
        "dataset": asdict(shared),
        "num_classes": len(label_names),
        "batch_size": batch_size,
        "seed": seed,
        "tokenizer": None if encoder is None else _pack(encoder),
    }


def own_examples(data_path: str, job: Mapping[str, Any]) -> Examples:
    """Read a deployed client's training examples.

    Args:
        data_path: The client's folder, in the layout of ``dataset.path`` (parquet) or ``dataset.root`` (MedMNIST); only
            the training split is read.
        job: The result of ``client_job``.

    Raises:
        DataError: The data cannot be read, hold less than one batch, or have classes unknown to the server.
    """
    settings = replace(read(DatasetSettings, job["dataset"], "dataset"), path=data_path, root=data_path)
    raw = load_split(settings, "train", job["seed"])
    encoder = None if job["tokenizer"] is None else _unpack(job["tokenizer"])

    def encode(texts: list[str]) -> dict[str, Tensor]:
        assert encoder is not None
        return encoder.encode(texts, settings.max_tokens)

    return prepare_client(raw, settings, job["batch_size"], job["seed"], None if encoder is None else encode)


def with_client(label_counts: Tensor, client_id: str, counts: Sequence[int]) -> Tensor:
    """Return label counts ``(num_clients, C)`` with a client's row set; missing rows before it are zeros.

    Raises:
        ConfigError: The client has another number of classes.
    """
    num_clients, num_classes = label_counts.shape
    if len(counts) != num_classes:
        raise ConfigError(f"client {client_id} counts {len(counts)} classes and the server {num_classes}")
    grown = label_counts.new_zeros(max(num_clients, int(client_id) + 1), num_classes)
    grown[:num_clients] = label_counts
    grown[int(client_id)] = torch.tensor(counts)
    return grown


def _pack(encoder: TextEncoder) -> dict[str, str]:
    """Return the contents of a tokenizer's files, by file name."""
    with tempfile.TemporaryDirectory() as folder:
        encoder.save(folder)
        return {path.name: path.read_text() for path in Path(folder).iterdir()}


def _unpack(files: Mapping[str, str]) -> TextEncoder:
    with tempfile.TemporaryDirectory() as folder:
        for name, text in files.items():
            (Path(folder) / Path(name).name).write_text(text)
        return TextEncoder.load(folder)
