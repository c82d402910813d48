"""A run, read from the folder that it left: what a later question needs, without Flower or Ray."""

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_module
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor, nn
from yaml import YAMLError

from tracefl.cli import explain_config_error
from tracefl.config import read_baselines, read_provenance
from tracefl.datasets import load_examples
from tracefl.errors import ConfigError, RecordError
from tracefl.examples import Examples
from tracefl.faults import Fault
from tracefl.models import ModelSpec, build_model
from tracefl.privacy import PRIVACY_TRACES
from tracefl.privacy.settings import read_privacy
from tracefl.provenance import RoundRecord
from tracefl.rounds import RoundStore
from tracefl.tracing import Tracer
from tracefl.tracking import read_config

GROUPS = ("provenance", "baselines")


def read_round(given: str) -> int:
    """Return a round's number.

    Raises:
        ConfigError: It is none.
    """
    if not given.isdecimal() or not int(given):
        raise ConfigError(f"round must be a whole number from 1, got {given!r}")
    return int(given)


class StoredRun:
    """The folder of a run.

    Args:
        folder: The run's folder.

    Raises:
        RecordError: It is no run's.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = read_config(folder / "config.yaml")

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

    def round(self, server_round: int | None = None, overrides: Sequence[str] = ()) -> tuple[nn.Module, RoundRecord]:
        """Return a round's global model and the round.

        Args:
            server_round: The round; None for the last one that is stored.
            overrides: Of privacy.trace, as on the command line; others are passed over.

        Raises:
            RecordError: The round is not stored.
            ConfigError: privacy.trace asks for what is not there.
        """
        store = RoundStore(self.folder / "rounds")
        stored = store.stored_rounds()
        if server_round is None:
            if not stored:
                raise RecordError(f"{self.folder} keeps no round's weights; run with store=last or store=all")
            server_round = stored[-1]
        record = store.read(server_round)
        if _privacy_trace(self.config, overrides) == "before_noise":
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
        faulty = self.config.get("fault", {"name": "none"})["name"] != "none"  # older folders have no such key
        return Fault.from_json(self.read_text("fault.json")) if faulty else None

    @property
    def device(self) -> str:
        """Where to compute: the run's device where it is there, for its rounding."""
        return "cuda" if self.config["device"] == "cuda" and torch.cuda.is_available() else "cpu"

    def tracer(self, overrides: Sequence[str] = ()) -> Tracer:
        """Return what the run traces, and how.

        Args:
            overrides: Of the groups provenance and baselines, as on the command line.

        Raises:
            ConfigError: An override is illegal, or nothing is to be traced.
        """
        groups = _groups(self.config, overrides)
        settings = read_provenance(groups["provenance"])
        if settings is None:
            raise ConfigError("provenance.enabled=false traces nothing; give provenance=removal")
        baselines = read_baselines(groups["baselines"])
        return Tracer(settings, self.label_counts, self.fault, baselines, self.config["seed"], self.device)


def _privacy_trace(config: Mapping[str, Any], overrides: Sequence[str]) -> str:
    """Return which model is asked: the run's choice, or the one that is asked for."""
    asked = [o.partition("=")[2] for o in overrides if o.startswith("privacy.trace=")]
    if asked and asked[-1] not in PRIVACY_TRACES:
        raise ConfigError(f"privacy.trace must be one of {', '.join(PRIVACY_TRACES)}, got {asked[-1]!r}")
    return asked[-1] if asked else read_privacy(config["privacy"]).trace


def _groups(config: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the run's groups provenance and baselines, or the choices asked for, with single keys changed."""
    asked = dict(o.split("=", 1) for o in overrides if o.partition("=")[0] in GROUPS)
    keys = [o for o in overrides if o.startswith(tuple(f"{group}." for group in GROUPS))]
    try:
        with initialize_config_module("tracefl.conf", version_base="1.3"):
            cfg = compose("base", [f"{group}={choice}" for group, choice in asked.items()])
            for group in set(GROUPS) - set(asked):
                if group in config:  # else the run is older than the group
                    cfg[group] = OmegaConf.create(dict(config[group]))
            changed = OmegaConf.merge(cfg, OmegaConf.from_dotlist(keys))
            resolved = OmegaConf.to_container(changed, resolve=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(explain_config_error(error)) from error
    except YAMLError as error:
        said = " ".join(str(error).split())
        raise ConfigError(f"{' '.join(keys)} cannot be read: {said}; quote the value") from error
    assert isinstance(resolved, dict)
    return {group: resolved[group] for group in GROUPS}
