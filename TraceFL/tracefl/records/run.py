"""A run, read from the folder that it left: what a later question needs, without Flower or Ray."""

import json
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from tracefl.errors import ConfigError, RecordError
from tracefl.learning.datasets import load_examples
from tracefl.learning.examples import Examples
from tracefl.learning.faults import Fault
from tracefl.learning.models import ModelSpec, build_model
from tracefl.provenance import RoundRecord
from tracefl.records.settings import read_config
from tracefl.records.store import RoundStore

COMMAND = "command.txt"


class StoredRun:
    """The folder of a run.

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
        return self.read_text(COMMAND).strip() if (self.folder / COMMAND).exists() else None

    def read_text(self, name: str) -> str:
        """Return one of the run's files.

        Raises:
            RecordError: It is not there, or is no text.
        """
        path = self.folder / name
        if not path.exists():
            raise RecordError(f"{self.folder} is no run's folder: it has no {name}")
        try:
            return path.read_text()
        except UnicodeDecodeError as error:
            raise RecordError(f"{path} is damaged: {error}") from error

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
        model = build_model(ModelSpec.from_json(self.read_text("model.json")))
        model.load_state_dict(dict(record.global_weights))
        return model, record

    @property
    def server(self) -> Examples:
        """The server's examples."""
        return load_examples(self.folder / "server.safetensors")

    @cached_property
    def _labels(self) -> tuple[tuple[str, ...], Tensor, bool]:
        try:
            found = json.loads(self.read_text("label_counts.json"))
            counts = torch.tensor(found["label_counts"], dtype=torch.int64)
            names = tuple(map(str, found["label_names"]))
            if counts.shape[1:] != (len(names),):
                raise ValueError(f"{len(names)} names for counts of shape {tuple(counts.shape)}")
        except (ValueError, KeyError, TypeError) as error:
            raise RecordError(f"{self.folder / 'label_counts.json'} is damaged: {error!r}") from error
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
        """The clients had data of their own, which no configuration says."""
        return self._labels[2]

    @property
    def fault(self) -> Fault | None:
        """What some clients do wrong; None where all are honest."""
        return None if self.settings.fault is None else Fault.from_json(self.read_text("fault.json"))

    @property
    def device(self) -> str:
        """Where to compute: the run's device where it is there, for its rounding."""
        return "cuda" if self.settings.device == "cuda" and torch.cuda.is_available() else "cpu"
