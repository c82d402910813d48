"""Figures of a run, drawn with matplotlib without a display."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt

from tracefl.learning.datasets import FederatedData
from tracefl.report.class_axis import name_classes
from tracefl.report.measure_names import EXAMPLES_OF_CLASS
from tracefl.report.style import EXAMPLES, LOOKS, screen_style, write_figure

_MOST_NUMBERS = 200  # cells of the map that are written in


@screen_style()
def draw_run(rows: Sequence[Mapping[str, Any]], data: FederatedData, path: Path) -> None:
    """Draw a run: its accuracies over the rounds, and how many examples of each class each client holds."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    rounds = [row["round"] for row in rows]
    for column, look in LOOKS.items():
        values = [row[column] for row in rows]
        if any(value is not None for value in values):
            percents = [float("nan") if value is None else 100 * value for value in values]
            (line,) = left.plot(rounds, percents, label=look.name, **look.marks)
            if column == "localization_accuracy":
                line.set_zorder(line.get_zorder() + 1)  # above the removals' agreement, which often is as high:
            elif column == "counterfactual_agreement":
                line.set(linewidth=2.5 * line.get_linewidth(), markersize=1.6 * line.get_markersize())  # seen around it
    left.set(title="Accuracies, by round", xlabel="round", ylabel="percent", ylim=(-3, 103), xticks=_ticks(rounds))
    left.grid()
    left.set_axisbelow(True)
    figure.legend(loc="outside lower left", ncols=5)
    image = right.imshow(data.label_counts.numpy(), aspect="auto", cmap=EXAMPLES, vmin=0, interpolation="nearest")
    right.set(title="Who holds which class", xlabel="class", ylabel="client")
    if data.label_counts.numel() <= _MOST_NUMBERS:
        middle = image.norm.vmax / 2
        for client, counts in enumerate(data.label_counts.tolist()):
            for label, count in enumerate(counts):
                color = "white" if count > middle else "black"
                right.text(label, client, f"{count}", ha="center", va="center", color=color, fontsize="x-small")
    right.set_yticks(_ticks(range(len(data.label_counts))))
    name_classes(right, data.label_names)
    figure.colorbar(image, ax=right, label=EXAMPLES_OF_CLASS)
    write_figure(figure, path)


def _ticks(values: Sequence[int] | Any, most: int = 20) -> list[int]:
    """Return at most ``most`` evenly spaced whole values."""
    values = list(values)
    return values[:: max(1, -(-len(values) // most))]
