"""The paper's figures 2 to 5, drawn with matplotlib without a display: small panels in one column."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullLocator

from tracefl.paper.curves import Mark, Panel, on_page, size_words
from tracefl.paper.exhibits import Exhibit
from tracefl.paper.grid_points import GridPoint
from tracefl.paper.rule_findings import SeedMean
from tracefl.report.style import BLUE, COLUMN, GREY, LOOKS, VERMILLION, paper_style, save_figure

_MOST_COLUMNS = 3
_HEIGHTS = {1: 1.55, 2: 1.25, 3: 1.02}  # inches of a panel, by the columns
_CURVES = ("localization_accuracy", "chance_accuracy", "global_accuracy")  # the first is drawn last, above the others
_MARKS = {"localization_accuracy": (VERMILLION, "D"), "worst_round": (VERMILLION, "v"), "global_accuracy": (BLUE, "o")}
_X = {"round": "round", "alpha": "Dirichlet alpha", "noise": "noise multiplier"}
_PUBLISHED_X = 1.06  # of the axes' width: beside the curves, where a number of all rounds stands


def draw_page(
    exhibit: Exhibit, words: str, panels: Sequence[Panel], missing: Sequence[GridPoint], path: Path
) -> list[Path]:
    """Draw one page of a figure.

    Args:
        exhibit: Figure 2, 3, 4 or 5.
        words: What all panels of the page share, such as ``alpha 0.3``; empty without.
        panels: Its panels, one or more.
        missing: The paper's grid points without a run; the page says how many.
        path: Path of the files, without a suffix.

    Returns:
        The files.
    """
    columns = min(_MOST_COLUMNS, len(panels))
    if len(panels) == 4 or exhibit.over == "noise":  # a clipping norm on each side
        columns = min(2, columns)
    rows = -(-len(panels) // columns)
    lines = max(len(_title(panel, columns)) for panel in panels)
    notes = _notes(exhibit, words, panels, missing)
    with paper_style():
        entries = _legend(exhibit, panels)
        height = rows * (_HEIGHTS[columns] + 0.12 * lines) + 0.13 * -(-len(entries) // 2) + 0.13 * len(notes) + 0.35
        shared = exhibit.over != "round"  # runs may differ in their rounds
        figure, axes = plt.subplots(
            rows, columns, figsize=(COLUMN, height), squeeze=False, sharex=shared, sharey=True, layout="constrained"
        )
        for ax, panel in zip(axes.flat, panels, strict=False):
            _draw_panel(ax, exhibit, panel)
            ax.set_title("\n".join(_title(panel, columns)))
        for ax in axes.flat[len(panels) :]:
            ax.set_axis_off()
        figure.supylabel("percent")
        for number, ax in enumerate(axes.flat[: len(panels)]):
            if number + columns >= len(panels):  # nothing is below it
                ax.set_xlabel(_X[exhibit.over])
                ax.tick_params(labelbottom=True)
        figure.supxlabel("\n".join(notes), color=GREY)
        figure.legend(handles=list(entries.values()), loc="outside upper center", ncols=2)
        return save_figure(figure, path)


def _draw_panel(ax: Axes, exhibit: Exhibit, panel: Panel) -> None:
    over_rounds = exhibit.over == "round"
    for measure in reversed(_CURVES):
        _draw_curve(ax, panel.curves[measure], measure, over_rounds)
    for mark in panel.marks:
        _draw_mark(ax, mark)
    ax.set(ylim=(-4, 104), yticks=(0, 50, 100))
    ax.grid()
    ax.set_axisbelow(True)
    if over_rounds:
        ax.set_xlim(left=0.5)
        ax.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=True, steps=[1, 2, 5, 10]))
        return
    if exhibit.over == "noise":
        least = min((tick for tick in panel.ticks if tick > 0), default=1.0)
        if panel.ticks[0] == 0:
            ax.set_xscale("symlog", linthresh=least)
        else:
            ax.set_xscale("log")
        ax.xaxis.set_minor_locator(NullLocator())


def _draw_curve(ax: Axes, curve: Mapping[float, SeedMean | None], measure: str, over_rounds: bool) -> None:
    """Draw means in percent, the spread over seeds as a band; where nothing was measured the line breaks."""
    look = LOOKS[measure]
    xs = list(curve)
    means = [float("nan") if value is None else 100 * value.mean for value in curve.values()]
    every = None if not over_rounds or len(xs) <= 10 else _alone(means)  # a point alone would be no line
    ax.plot(xs, means, markevery=every, label=measure, **look.marks)
    low = [float("nan") if v is None else max(0.0, 100 * (v.mean - (v.spread or 0.0))) for v in curve.values()]
    high = [float("nan") if v is None else min(100.0, 100 * (v.mean + (v.spread or 0.0))) for v in curve.values()]
    if any(value is not None and value.spread for value in curve.values()):
        ax.fill_between(xs, low, high, color=look.colour, alpha=0.18, linewidth=0)


def _alone(values: Sequence[float]) -> list[int]:
    """Return the positions of values without a neighbour."""
    there = [False, *(value == value for value in values), False]  # nan is unlike itself
    return [i for i in range(len(values)) if there[i + 1] and not there[i] and not there[i + 2]]


def _draw_mark(ax: Axes, mark: Mark) -> None:
    """Draw a published number: at its x, or beside the curves where it is a mean over all rounds."""
    colour, marker = _MARKS[mark.measure]
    beside = mark.x is None
    ax.plot(
        [_PUBLISHED_X if mark.x is None else mark.x],
        [100 * mark.value],
        marker,
        color=colour,
        markerfacecolor="none",
        markeredgewidth=0.7,
        markersize=4.2,
        label=f"published {mark.measure}",
        transform=ax.get_yaxis_transform() if beside else ax.transData,
        clip_on=False,
    )


def _legend(exhibit: Exhibit, panels: Sequence[Panel]) -> dict[str, Line2D]:
    """Return the legend's entries: each curve, then each kind of mark that is drawn."""
    best = "" if exhibit.over == "round" else ", best round"
    of_best = {"global_accuracy": best}
    entries = {f"{LOOKS[m].name}{of_best.get(m, '')}": Line2D([], [], **LOOKS[m].marks) for m in _CURVES}
    drawn = {mark.measure: mark.x is None for panel in panels for mark in panel.marks}
    published = {
        "localization_accuracy": "published localization",
        "worst_round": "published, worst round",
        "global_accuracy": "published global",
    }
    for measure, text in published.items():
        if measure in drawn:
            colour, marker = _MARKS[measure]
            mean = ", mean" if drawn[measure] and measure == "localization_accuracy" else ""
            best = ", best" if drawn[measure] and measure == "global_accuracy" else ""
            entries[f"{text}{mean}{best}"] = Line2D(
                *([], []), color=colour, linestyle="", marker=marker, markerfacecolor="none", markersize=4.2
            )
    for text, handle in entries.items():
        handle.set_label(text)
    return entries


def _notes(exhibit: Exhibit, words: str, panels: Sequence[Panel], missing: Sequence[GridPoint]) -> list[str]:
    """Return the notes below the figure: how the runs differ from the paper's, their seeds, and what is missing."""
    notes = [f"Dirichlet {words}"] if words else []
    seeds = {len({run.config.seed for run in panel.runs}) for panel in panels}
    if max(seeds) > 1:
        notes.append(f"mean ± standard deviation over {'up to ' if len(seeds) > 1 else ''}{max(seeds)} seeds")
    if not all(panel.same_size for panel in panels):
        notes.append(f"runs: {size_words([run for panel in panels for run in panel.runs])}")
        if any(panel.marks and not panel.same_size for panel in panels):
            notes.append("published at the paper's size, with pretrained weights")
    lacking = len(on_page(exhibit, words, missing))
    if lacking:
        notes.append(f"no run: {lacking} of the paper's {len(on_page(exhibit, words, exhibit.grid))} settings")
    return textwrap.wrap("; ".join(notes), 66)


def _title(panel: Panel, columns: int) -> list[str]:
    lines = [panel.words] if columns == 1 else panel.title.split("\n")
    wrapped = [part for line in lines for part in textwrap.wrap(line, 54 // columns)]
    return wrapped if len(wrapped) <= 4 else [*wrapped[:3], f"{wrapped[3]}…"]
