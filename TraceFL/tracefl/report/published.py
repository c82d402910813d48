"""The paper's published results, to set beside a run's: ``published.csv``, which names its source."""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

_FILE = Path(__file__).with_name("published.csv")


@dataclass(frozen=True)
class Published:
    """A published run; accuracies are fractions, and the chance level of localization was not published.

    Attributes:
        localization: Mean over the rounds.
        worst_round: Localization accuracy of the worst round.
        best_global: Highest accuracy of the global model.
    """

    localization: float
    worst_round: float
    best_global: float


def find_published(config: Mapping[str, Any]) -> Published | None:
    """Return the published run of a configuration's setting, None where there is none.

    The setting is data set, model, Dirichlet alpha, clients, clients a round, rounds, noise and clipping. Whether the
    run had the paper's data at full size and its pretrained weights is for the reader to see.
    """
    if config["dataset"]["partition"] != "dirichlet" or config["privacy"]["name"] not in ("none", "central"):
        return None
    noise, clip = noise_and_clip(config)
    return _published().get(
        (
            config["dataset"]["name"],
            config["model"]["name"],
            float(config["dirichlet_alpha"]),
            config["num_clients"],
            config["clients_per_round"],
            config["num_rounds"],
            noise,
            clip,
        )
    )


def noise_and_clip(config: Mapping[str, Any]) -> tuple[float | None, float | None]:
    """Return the noise multiplier and the clipping norm, None each where the way of privacy has none."""
    privacy = config["privacy"]
    if privacy["name"] == "none":
        return None, None
    noise, clip = privacy.get("noise_multiplier"), privacy.get("clipping_norm")
    return None if noise is None else float(noise), None if clip is None else float(clip)


@cache
def _published() -> dict[tuple[Any, ...], Published]:
    lines = [line for line in _FILE.read_text().splitlines() if not line.startswith("#")]
    return {
        (
            row["dataset"],
            row["model"],
            float(row["dirichlet_alpha"]),
            int(row["num_clients"]),
            int(row["clients_per_round"]),
            int(row["num_rounds"]),
            float(row["noise_multiplier"]) if row["noise_multiplier"] else None,
            float(row["clipping_norm"]) if row["clipping_norm"] else None,
        ): Published(
            float(row["localization_accuracy"]),
            float(row["worst_round_localization_accuracy"]),
            float(row["best_global_accuracy"]),
        )
        for row in csv.DictReader(lines)
    }
