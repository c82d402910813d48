"""The paper's published results, for comparison with a run's: ``published*.csv``, which name their source."""

import csv
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from tracefl.paper.grid_points import FLIPPED, GridPoint

_FILE = Path(__file__).with_name("published.csv")
_TABLE1 = Path(__file__).with_name("published_table1.csv")
_FIGURE6 = Path(__file__).with_name("published_figure6.csv")


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


@dataclass(frozen=True)
class PublishedSeconds:
    """Published seconds per input: mean over settings, with the fastest and slowest setting where given."""

    mean: float
    lowest: float | None
    highest: float | None


def find_published(point: GridPoint) -> Published | None:
    """Return the published run of a grid point; None where there is none.

    Runs with faults have none: those are in Table I, see ``find_published_suspects``. It is not checked whether the run
    has the paper's full-size data and pretrained weights.
    """
    return _published().get(point)


def find_published_suspects(point: GridPoint) -> dict[str, float | None]:
    """Return Table I's localization accuracies of a grid point: rule to fraction, None where not applicable.

    Empty where Table I does not have the grid point. Its setting: no privacy, all labels of one client of ten flipped
    to 0 from the first round on.
    """
    return dict(_published_suspects().get(point, {}))


def published_seconds() -> dict[str, PublishedSeconds]:
    """Return Figure 6: rule to seconds per input."""
    return {
        row["rule"]: PublishedSeconds(float(row["mean"]), _number(row["lowest"]), _number(row["highest"]))
        for row in _rows(_FIGURE6)
    }


@cache
def _published() -> dict[GridPoint, Published]:
    return {
        _point(row, row["noise_multiplier"], row["clipping_norm"]): Published(
            float(row["localization_accuracy"]),
            float(row["worst_round_localization_accuracy"]),
            float(row["best_global_accuracy"]),
        )
        for row in _rows(_FILE)
    }


@cache
def _published_suspects() -> dict[GridPoint, dict[str, float | None]]:
    return {
        replace(_point(row), fault=FLIPPED): {rule: _number(row[rule]) for rule in ("artifact", "feddebug")}
        for row in _rows(_TABLE1)
    }


def _point(row: Mapping[str, str], noise: str = "", clip: str = "") -> GridPoint:
    return GridPoint(
        row["dataset"],
        row["model"],
        float(row["dirichlet_alpha"]),
        int(row["num_clients"]),
        int(row["clients_per_round"]),
        int(row["num_rounds"]),
        "central" if noise else "none",
        _number(noise),
        _number(clip),
    )


def _number(text: str) -> float | None:
    return float(text) if text else None


def _rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(line for line in path.read_text().splitlines() if not line.startswith("#")))
