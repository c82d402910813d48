"""The paper's published results, to set beside a run's: ``published*.csv``, which name their source."""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tracefl.report.faults import NO_FAULT, fault_name, fault_share, faulty_clients

_FILE = Path(__file__).with_name("published.csv")
_TABLE1 = Path(__file__).with_name("published_table1.csv")


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

    The setting is data set, model, Dirichlet alpha, clients, clients a round, rounds, noise and clipping, and no fault:
    what faults give is another table, ``find_published_suspects``. Whether the run had the paper's data at full size
    and its pretrained weights is for the reader to see.
    """
    if config["dataset"]["partition"] != "dirichlet" or config["privacy"]["name"] not in ("none", "central"):
        return None
    if fault_name(config) != NO_FAULT:
        return None
    return _published().get((*_setting(config), *noise_and_clip(config)))


def find_published_suspects(config: Mapping[str, Any]) -> dict[str, float | None]:
    """Return Table I's localization accuracy of a configuration's setting: rule to fraction, None: not applicable.

    The setting is as in ``find_published``, without privacy, with all labels of one client flipped to 0 from
    the first round on. Empty where Table I does not have it.
    """
    if config["dataset"]["partition"] != "dirichlet" or config["privacy"]["name"] != "none":
        return {}
    if fault_name(config) != "label_flip" or fault_share(config) != 1 or faulty_clients(config) != 1:
        return {}
    fault = config["fault"]
    if fault.get("flip") is not None or fault.get("all_to") not in (None, 0) or fault["from_round"] != 1:
        return {}
    return dict(_published_suspects().get(_setting(config), {}))


def _setting(config: Mapping[str, Any]) -> tuple[Any, ...]:
    return (
        config["dataset"]["name"],
        config["model"]["name"],
        float(config["dirichlet_alpha"]),
        config["num_clients"],
        config["clients_per_round"],
        config["num_rounds"],
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
    return {
        (
            *_setting_of(row),
            float(row["noise_multiplier"]) if row["noise_multiplier"] else None,
            float(row["clipping_norm"]) if row["clipping_norm"] else None,
        ): Published(
            float(row["localization_accuracy"]),
            float(row["worst_round_localization_accuracy"]),
            float(row["best_global_accuracy"]),
        )
        for row in _rows(_FILE)
    }


@cache
def _published_suspects() -> dict[tuple[Any, ...], dict[str, float | None]]:
    return {
        _setting_of(row): {rule: float(row[rule]) if row[rule] else None for rule in ("artifact", "feddebug")}
        for row in _rows(_TABLE1)
    }


def _setting_of(row: Mapping[str, str]) -> tuple[Any, ...]:
    return (
        row["dataset"],
        row["model"],
        float(row["dirichlet_alpha"]),
        int(row["num_clients"]),
        int(row["clients_per_round"]),
        int(row["num_rounds"]),
    )


def _rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(line for line in path.read_text().splitlines() if not line.startswith("#")))
