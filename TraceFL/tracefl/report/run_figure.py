"""Figures of a run, drawn with matplotlib without a display."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt

from tracefl.learning.datasets import FederatedData
from tracefl.report.class_axis import short_names
from tracefl.report.style import BLUE, GREEN, GREY, VERMILLION

_CURVES = (
    ("global_accuracy", "global accuracy", BLUE, "-o"),
    ("localization_accuracy", "localization accuracy", VERMILLION, "-s"),
    ("chance_accuracy", "chance level of localization", VERMILLION, ":x"),
    ("top_holder_accuracy", "top holder", GREEN, "-^"),
    ("counterfactual_agreement", "counterfactual agreement", GREY, "-d"),
)


def draw_run(rows: Sequence[Mapping[str, Any]], data: FederatedData, path: Path) -> None:
    """Draw a run: its accuracies over the rounds, and how many examples of each class each client holds."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    rounds = [row["round"] for row in rows]
    for column, name, colour, style in _CURVES:
        values = [row[column] for row in rows]
        if any(value is not None for value in values):
            percents = [float("nan") if value is None else 100 * value for value in values]
            left.plot(rounds, percents, style, color=colour, label=name, markersize=5)
    left.set(xlabel="round", ylabel="percent", ylim=(-3, 103), xticks=_ticks(rounds))
    left.grid(alpha=0.3)
    left.legend(fontsize=8)
    image = right.imshow(data.label_counts.numpy(), aspect="auto", cmap="cividis", interpolation="nearest")
    right.set(xlabel="class", ylabel="client", title="training examples")
    right.set_yticks(_ticks(range(len(data.label_counts))))
    names = short_names(data.label_names)
    right.set_xticks(
        range(len(names)), names, rotation=0 if all(len(n) <= 3 for n in names) else 60, ha="center", parse_math=False
    )
    figure.colorbar(image, ax=right)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _ticks(values: Sequence[int] | Any, most: int = 20) -> list[int]:
    """Return at most ``most`` evenly spaced whole values."""
    values = list(values)
    return values[:: max(1, -(-len(values) // most))]
