"""Figure 5's page by class: how well the predictions of each class are traced, and to how many clients."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from tracefl.errors import RecordError
from tracefl.paper.collected_run import CollectedRun
from tracefl.paper.rule_findings import SeedMean, over_seeds
from tracefl.records.reading import read_results
from tracefl.records.run import StoredRun
from tracefl.report.style import COLUMN, GREY, LOOKS, paper_style, save_figure

_LONGEST_NAME = 24  # characters
_COLUMN_POINTS = 29  # width of a column of numbers
CLASS_COLUMNS = (
    *("setting", "class", "name", "inputs", "clients_traced", "seeds"),
    *(f"{measure}{end}" for measure in ("localization_accuracy", "chance_accuracy") for end in ("", "_spread")),
)
"""Of the CSV: fractions, mean and standard deviation over seeds; empty where no input of the class was traced."""


@dataclass(frozen=True)
class ClassFindings:
    """The traces of one class's inputs.

    Attributes:
        name: The class's name.
        inputs: Traced inputs in all rounds of all runs.
        clients: Number of different clients ranked first, in the run with the most of them.
        localization: How often the first client holds the class, over seeds; None without inputs.
        chance: What a random participant would score on the same inputs.
    """

    name: str
    inputs: int
    clients: int
    localization: SeedMean | None
    chance: SeedMean | None


def read_classes(runs: Iterable[CollectedRun]) -> list[ClassFindings]:
    """Return the findings of one setting's runs for each class, from the inputs that they traced.

    Raises:
        RecordError: A run is damaged.
    """
    traced, names = [], []
    for run in runs:
        rows = _rows(run.path)
        names = read_results(run.path)["classes"]
        traced.append({label: [row for row in rows if row[0] == label] for label in range(len(names))})
    found = []
    for label, name in enumerate(names):
        groups = [own.get(label, []) for own in traced]
        found.append(
            ClassFindings(
                name,
                inputs=sum(map(len, groups)),
                clients=max(len({client for _, client, _, _ in group}) for group in groups),
                localization=over_seeds(fmean(row[2] for row in group) if group else None for group in groups),
                chance=over_seeds(fmean(row[3] for row in group) if group else None for group in groups),
            )
        )
    return found


def class_rows(panels: Mapping[str, Sequence[ClassFindings]]) -> list[dict[str, Any]]:
    """Return the rows of the CSV.

    Args:
        panels: The findings, by the setting's label.
    """
    return [
        {
            "setting": setting,
            "class": label,
            "name": one.name,
            "inputs": one.inputs,
            "clients_traced": one.clients,
            "seeds": one.localization.seeds if one.localization else 0,
            "localization_accuracy": one.localization and one.localization.mean,
            "localization_accuracy_spread": one.localization and one.localization.spread,
            "chance_accuracy": one.chance and one.chance.mean,
            "chance_accuracy_spread": one.chance and one.chance.spread,
        }
        for setting, found in panels.items()
        for label, one in enumerate(found)
    ]


def draw_classes(panels: Mapping[str, Sequence[ClassFindings]], path: Path) -> list[Path]:
    """Draw localization accuracy and its chance level for each class, one panel per setting.

    Args:
        panels: The findings, by the setting's label.
        path: Path of the files, without a suffix.

    Returns:
        The files.
    """
    heights = [0.35 + 0.13 * len(found) for found in panels.values()]
    with paper_style():
        figure, axes = plt.subplots(
            *(len(panels), 1), figsize=(COLUMN, sum(heights) + 0.5), squeeze=False, height_ratios=heights, sharex=True,
            layout="constrained",
        )  # fmt: skip
        for ax, (setting, found) in zip(axes.flat, panels.items(), strict=True):
            _draw_panel(ax, found)
            ax.set_title(setting, parse_math=False)
        axes[-1, 0].set_xlabel("percent")
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles[::-1], labels[::-1], loc="outside upper center", ncols=2)
        return save_figure(figure, path)


def _draw_panel(ax: Axes, found: Sequence[ClassFindings]) -> None:
    looks = {"chance": LOOKS["chance_accuracy"], "localization": LOOKS["localization_accuracy"]}
    for attribute, look in looks.items():
        measured = [(place, getattr(one, attribute)) for place, one in enumerate(found) if one.inputs]
        ax.errorbar(
            [100 * value.mean for _, value in measured],
            [place for place, _ in measured],
            xerr=[100 * (value.spread or 0.0) for _, value in measured],
            fmt=look.marker,
            color=look.colour,
            label=look.name,
            elinewidth=0.7,
        )
    names = [one.name if one.name == str(label) else f"{label} {one.name}" for label, one in enumerate(found)]
    ax.set_yticks(range(len(found)), [name[:_LONGEST_NAME] for name in names], parse_math=False)
    columns = {"inputs": [one.inputs for one in found], "clients": [one.clients for one in found]}
    for number, (heading, values) in enumerate(columns.items()):
        for place, text in enumerate([heading, *map(str, values)], -1):
            ax.annotate(
                text,
                (1, place),
                xycoords=ax.get_yaxis_transform(),
                xytext=(_COLUMN_POINTS * (number + 1), 0),
                textcoords="offset points",
                va="center",
                ha="right",
                color=GREY,
                annotation_clip=False,
            )
    ax.set(xlim=(-3, 103), ylim=(len(found) - 0.4, -0.6), xticks=(0, 50, 100))
    ax.grid()
    ax.set_axisbelow(True)


def _rows(folder: Path) -> list[tuple[int, str, bool, float]]:
    """Return (label, traced client, whether it holds the label, chance) for each input with a known chance."""
    rows = [
        (t.label, t.traced_client, t.localized, t.chance)
        for result in StoredRun(folder).store.results()
        for t in result.traced
        if t.localized is not None and t.chance is not None
    ]
    if not rows:  # of a run that has a localization accuracy
        raise RecordError(f"{folder} is damaged: its rounds hold no traced input")
    return rows
