"""A run, read from the folder that it left: what a later question needs, without Flower or Ray."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tracefl.errors import ConfigError, RecordError
from tracefl.learning.datasets import load_examples
from tracefl.learning.examples import Examples
from tracefl.learning.faults import ClientChange, Fault
from tracefl.learning.models import ModelSpec, build_model
from tracefl.provenance import RoundRecord
from tracefl.records.reading import reading
from tracefl.records.settings import read_config
from tracefl.records.store import RoundStore

COMMAND = "command.txt"


class StoredRun:
    """A run, by its folder.

    Args:
        folder: The run's folder.

    Raises:
        RecordError: It is no run's.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings = read_config(folder / "config.yaml")

    @property
    def command(self) -> str | None:
        """The command that made the run; None where it was made from Python."""
        if not (self.folder / COMMAND).exists():
            return None
        with self._reading(COMMAND) as path:
            return path.read_text().strip()

    @property
    def spec(self) -> ModelSpec:
        """The model's architecture.

        Raises:
            RecordError: model.json is missing or damaged.
        """
        with self._reading("model.json") as path:
            return ModelSpec.from_json(path.read_text())

    @property
    def environment(self) -> Mapping[str, Any] | None:
        """What results.json says, versions and hardware among it; None of a run that is not complete.

        Raises:
            RecordError: It is damaged.
        """
        if not (self.folder / "results.json").exists():
            return None
        with self._reading("results.json") as path:
            results = json.loads(path.read_text())
            return {**results, "versions": dict(results["versions"]), "hardware": dict(results["hardware"])}

    def round(self, server_round: int | None = None, before_noise: bool = False) -> tuple[nn.Module, RoundRecord]:
        """Return a round's global model and the round.

        Args:
            server_round: The round; None for the last one that is stored.
            before_noise: The average before privacy's noise in place of the model that was deployed.

        Raises:
            RecordError: The round is not stored.
            ConfigError: The round has no noise.
        """
        store = RoundStore(self.folder / "rounds")
        stored = store.stored_rounds()
        if server_round is None:
            if not stored:
                raise RecordError(f"{self.folder} keeps no round's weights; run with store=last or store=all")
            server_round = stored[-1]
        record = store.read(server_round)
        if before_noise:
            if record.before_noise is None:
                raise ConfigError(f"privacy.trace=before_noise, and round {server_round} of {self.folder} has no noise")
            record = record.without_noise()
        with self._reading("model.json"):
            model = build_model(self.spec)
            model.load_state_dict(dict(record.global_weights))
        return model, record

    @property
    def server(self) -> Examples:
        """The server's examples.

        Raises:
            RecordError: server.safetensors is missing or damaged.
        """
        examples, classes = load_examples(self.folder / "server.safetensors"), len(self.label_names)
        with self._reading("server.safetensors"):
            if examples.labels.ndim != 1 or not ((examples.labels >= 0) & (examples.labels < classes)).all():
                raise ValueError(f"its labels are not numbers of {classes} classes")
        return examples

    @cached_property
    def _labels(self) -> tuple[tuple[str, ...], Tensor, bool]:
        with self._reading("label_counts.json") as path:
            found, clients = json.loads(path.read_text()), self.settings.num_clients
            counts = torch.tensor(found["label_counts"], dtype=torch.int64)
            names = tuple(map(str, found["label_names"]))
            if counts.shape[1:] != (len(names),) or len(counts) < clients:
                shape = tuple(counts.shape)
                raise ValueError(f"counts of shape {shape} for {clients} clients and {len(names)} classes")
            return names, counts, bool(found.get("deployed"))

    @property
    def label_names(self) -> tuple[str, ...]:
        """Name of each class."""
        return self._labels[0]

    @property
    def label_counts(self) -> Tensor:
        """``(num_clients, C)`` training examples of each true class, row i for client i."""
        return self._labels[1]

    @property
    def is_deployed(self) -> bool:
        """The run was a deployment: its clients had data of their own."""
        return self._labels[2]

    @cached_property
    def keys(self) -> Mapping[str, str]:
        """Client id to the fingerprint of its SuperNode's key, of a deployment's clients.

        Raises:
            RecordError: label_counts.json is missing or damaged, or has no key of a client with examples.
        """
        with self._reading("label_counts.json") as path:
            keys = json.loads(path.read_text())["keys"]
            holders = [str(client) for client, counts in enumerate(self.label_counts.tolist()) if sum(counts)]
            if not all(isinstance(keys[client], str) for client in holders):
                raise ValueError("keys that are no text")
            return dict(keys)

    @property
    def fault(self) -> Fault | None:
        """The injected fault; None without one.

        Raises:
            RecordError: fault.json is missing or damaged.
        """
        if self.settings.fault is None:
            return None
        with self._reading("fault.json") as path:
            return Fault.from_json(path.read_text())

    @property
    def changes(self) -> tuple[ClientChange, ...]:
        """What the fault changed, one entry for each faulty client; empty without a fault.

        Raises:
            RecordError: fault.json is missing or damaged.
        """
        if self.settings.fault is None:
            return ()
        with self._reading("fault.json") as path:
            return tuple(ClientChange(**change) for change in json.loads(path.read_text())["changes"])

    @property
    def device(self) -> str:
        """The run's device, for the same rounding, where this machine has it; else the CPU."""
        return "cuda" if self.settings.device == "cuda" and torch.cuda.is_available() else "cpu"

    @contextmanager
    def _reading(self, name: str) -> Iterator[Path]:
        with reading(self.folder / name):
            yield self.folder / name
