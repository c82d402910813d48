"""Grid points of the paper's experiments: what a run varies, without its seed and its circumstances."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from tracefl.conf.composing import resolved_config
from tracefl.conf.constraints import choice_name
from tracefl.learning.faults.words import NO_FAULT, describe_fault
from tracefl.learning.privacy.settings import CentralPrivacySettings, Privacy
from tracefl.records.settings import Settings, read_keys

FLIPPED = "label_flip 100 %, 1 of 10"
"""Table I's fault as ``describe_fault`` says it: all labels of one of ten clients flipped to 0."""

_NAMES = {
    "resnet18": "ResNet-18",
    "resnet34": "ResNet-34",
    "resnet50": "ResNet-50",
    "densenet121": "DenseNet-121",
    "gpt": "GPT",
    "bert": "BERT",
    "mnist": "MNIST",
    "cifar10": "CIFAR-10",
    "pathmnist": "PathMNIST",
    "organamnist": "OrganAMNIST",
    "dbpedia_14": "DBpedia",
    "yahoo_answers_topics": "Yahoo Answers",
}


@dataclass(frozen=True)
class GridPoint:
    """What the paper's runs vary.

    Attributes:
        dataset: Name of the data set.
        model: Name of the model.
        alpha: Alpha of the Dirichlet partition; None with another partition.
        num_clients: Number of clients.
        clients_per_round: Clients sampled in a round.
        num_rounds: Number of rounds.
        privacy: Privacy mechanism; ``none`` for none.
        noise: Noise multiplier; None without privacy.
        clip: Clipping norm; None without privacy.
        fault: The fault in the words of ``describe_fault``.
    """

    dataset: str
    model: str
    alpha: float | None
    num_clients: int
    clients_per_round: int
    num_rounds: int
    privacy: str = "none"
    noise: float | None = None
    clip: float | None = None
    fault: str = NO_FAULT


def point_of(config: Settings) -> GridPoint:
    """Return a run's grid point."""
    noise, clip = noise_and_clip(config.privacy)
    return GridPoint(
        dataset=config.dataset.name,
        model=config.model.name,
        alpha=float(config.dirichlet_alpha) if config.dataset.partition == "dirichlet" else None,
        num_clients=config.num_clients,
        clients_per_round=config.clients_per_round,
        num_rounds=config.num_rounds,
        privacy=choice_name(config.privacy),
        noise=noise,
        clip=clip,
        fault=describe_fault(config.fault, config.num_clients),
    )


def point_of_job(overrides: Iterable[str]) -> GridPoint:
    """Return the grid point of a job script's run.

    Args:
        overrides: As in ``tracefl.paper.runs``. Composing each run's would take a minute, so only the experiment is
            composed, and what the script varies is filled in.

    Raises:
        KeyError: The script varies something that is not in a grid point.
    """
    keys = dict(override.split("=", 1) for override in overrides)
    point = point_of(_experiment(keys.pop("experiment")))
    return replace(point, **{_FIELDS[key][0]: _FIELDS[key][1](value) for key, value in keys.items()})


def noise_and_clip(privacy: Privacy | None) -> tuple[float | None, float | None]:
    """Return the noise multiplier and the clipping norm, each None where the mechanism has none."""
    noise = None if privacy is None else privacy.noise_multiplier
    clip = privacy.clipping_norm if isinstance(privacy, CentralPrivacySettings) else None
    return None if noise is None else float(noise), None if clip is None else float(clip)


def pretty(name: str) -> str:
    """Return a model's or a data set's name as papers write it."""
    return _NAMES.get(name, name)


def pretty_words(text: str) -> str:
    """Return text with the names of models and data sets in it as papers write them."""
    return re.sub(r"\w+", lambda word: pretty(word[0]), text)


_FIELDS: dict[str, tuple[str, Any]] = {
    "model": ("model", str),
    "dataset": ("dataset", str),
    "dirichlet_alpha": ("alpha", float),
    "num_clients": ("num_clients", int),
    "clients_per_round": ("clients_per_round", int),
    "num_rounds": ("num_rounds", int),
    "privacy.noise_multiplier": ("noise", float),
    "privacy.clipping_norm": ("clip", float),
}
"""What the job scripts vary: the override's key, the field and its type."""


@cache
def _experiment(name: str) -> Settings:
    return read_keys(resolved_config([f"experiment={name}"]))
