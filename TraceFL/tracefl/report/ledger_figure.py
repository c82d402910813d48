"""A run's ledger as a figure: each client's mean contributions, overall and by predicted class."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt

from tracefl.common.words import counted
from tracefl.questions.ledger import RunLedger
from tracefl.report.class_axis import name_classes
from tracefl.report.measure_names import MEAN_CONTRIBUTION
from tracefl.report.style import BLUE, CONTRIBUTIONS, ORANGE, VERMILLION, screen_style, write_figure

_MOST_CLIENTS = 40  # rows that can still be told apart
_KINDS = ((True, "correct", BLUE), (False, "wrong", ORANGE))
_FAULTY = VERMILLION


@screen_style()
def draw_ledger(run_ledger: RunLedger, path: Path) -> None:
    """Draw the clients with a traced prediction, the most useful first; of a long list, only both ends.

    Args:
        run_ledger: The ledger, with at least one traced prediction.
        path: The file, in the format of its suffix.
    """
    ranked, ledger = run_ledger.ranked, run_ledger.ledger
    half = _MOST_CLIENTS // 2
    shown = ranked if len(ranked) <= _MOST_CLIENTS else [*ranked[:half], *ranked[-half:]]
    classes, rows = len(run_ledger.label_names), np.arange(len(shown))
    size = (5.6 + 2 * max(3.0, 0.34 * classes), 2.2 + 0.3 * len(shown))
    figure, (bars, *maps) = plt.subplots(
        1, 3, figsize=size, layout="constrained", sharey=True, width_ratios=(4.2, *[max(3.0, 0.34 * classes)] * 2)
    )
    for offset, (correct, name, colour) in zip((-0.19, 0.19), _KINDS, strict=True):
        means = [mean if (mean := ledger.tally(k, correct).mean) is not None else np.nan for k in shown]
        label = f"{run_ledger.predictions(correct)} {name} predictions"
        bars.barh(rows + offset, means, height=0.36, color=colour, label=label)
        for row, client_id in zip(rows + offset, shown, strict=True):
            ends = run_ledger.uncertainty.mean(client_id, correct)
            if ends is not None:
                bars.hlines(row, ends.low, ends.high, color="black", linewidth=0.8)
    bars.axvline(0, color="black", linewidth=0.8)
    bars.set(xlabel=MEAN_CONTRIBUTION, ylabel="client (rounds it took part in)")
    bars.set_yticks(rows, [f"{k} ({len(ledger.rounds_of[k])})" for k in shown])
    bars.invert_yaxis()
    for text, client_id in zip(bars.get_yticklabels(), shown, strict=True):
        if client_id in (run_ledger.faulty or ()):
            text.set(color=_FAULTY, fontweight="bold")
    grids = [mean_by_class(run_ledger, shown, correct) for correct, _, _ in _KINDS]
    highest = max((float(np.nanmax(np.abs(grid))) for grid in grids if not np.isnan(grid).all()), default=1.0) or 1.0
    for ax, grid, (_, name, _) in zip(maps, grids, _KINDS, strict=True):
        ax.set_title(f"by class predicted: {name}")
        image = ax.imshow(np.ma.masked_invalid(grid), aspect="auto", cmap=CONTRIBUTIONS, vmin=-highest, vmax=highest)
        name_classes(ax, run_ledger.label_names)
    figure.colorbar(image, ax=maps, label=f"{MEAN_CONTRIBUTION} (grey: none traced)", aspect=30, pad=0.02)
    figure.legend(loc="outside lower left", ncols=2)
    rest = "" if len(shown) == len(ranked) else f", {half} at each end of {len(ranked)}"
    marked = "; faulty clients in colour" if run_ledger.faulty else ""
    intervals = "; lines: 95 % intervals over the inputs"
    figure.suptitle(
        f"What each client contributed in {counted(ledger.rounds, 'round')}, the most useful first{rest}{marked}"
        f"{intervals}"
    )
    write_figure(figure, path)


def mean_by_class(run_ledger: RunLedger, client_ids: Sequence[str], correct: bool) -> np.ndarray:
    """Return the mean contributions ``(clients, C)`` by predicted class, NaN where none was traced."""
    grid = np.full((len(client_ids), len(run_ledger.label_names)), np.nan)
    for row, client_id in enumerate(client_ids):
        for number, tally in run_ledger.ledger.by_class(client_id, correct).items():
            grid[row, number] = tally.mean
    return grid
