"""A run with and without some of its clients as a figure: what changes over the rounds, and for each class."""

from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from tracefl.questions.replay import Replay
from tracefl.report.class_axis import name_classes
from tracefl.report.replay import by_class
from tracefl.report.style import BLUE, COLUMN, GREY, VERMILLION, paper_style, save_figure

_MOST_CLASSES = 40  # most whose names can still be read
_WITH, _WITHOUT = (GREY, ":", "x"), (BLUE, "-", "o")


def draw_replay(replay: Replay, path: Path) -> list[Path]:
    """Draw a replay.

    Args:
        replay: The replay, with at least one round.
        path: Where to write it, without a suffix.

    Returns:
        The PNG and PDF files.
    """
    attack = replay.has_attack
    classes = min(_MOST_CLASSES, len(replay.label_names))
    with paper_style():
        width = max(COLUMN, 0.16 * classes + 0.7)
        figure, axes = plt.subplot_mosaic(
            [["accuracy", "attack"], ["classes", "classes"]] if attack else [["accuracy"], ["classes"]],
            figsize=(width, 3.3),
            layout="constrained",
        )
        _draw_rounds(axes["accuracy"], replay, "accuracy", "global accuracy")
        if attack:
            _draw_rounds(axes["attack"], replay, "attack_success", "attack success")
        _draw_classes(axes["classes"], replay)
        handles, labels = axes["accuracy"].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=2)
        estimate = "" if all(r.is_exact for r in replay.rounds) else ": an estimate"
        figure.supxlabel(f"from round {replay.without_from}, {replay.how_words}{estimate}", color=GREY)
        return save_figure(figure, path)


def _draw_rounds(ax: Axes, replay: Replay, measure: str, title: str) -> None:
    rounds = [r.server_round for r in replay.rounds]
    for side, (colour, line, marker) in (("before", _WITH), ("after", _WITHOUT)):
        values = [getattr(getattr(r, side), measure) for r in replay.rounds]
        percents = [np.nan if value is None else 100 * value for value in values]
        name = "with all clients" if side == "before" else f"without {_short(replay.clients_words)}"
        ax.plot(rounds, percents, line, marker=marker, color=colour, label=name)
    ax.set(title=title, xlabel="round", ylabel="percent", ylim=(-4, 104), yticks=(0, 50, 100))
    ax.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True, steps=[1, 2, 5, 10]))
    ax.grid()
    ax.set_axisbelow(True)


def _draw_classes(ax: Axes, replay: Replay) -> None:
    """Draw the classes after the last round, each as a line from its accuracy with the clients to that without."""
    last = replay.rounds[-1]
    pairs = by_class(last)[:_MOST_CLASSES]
    values = np.array([[np.nan if v is None else 100 * v for v in pair] for pair in pairs])  # (C, 2)
    places = np.arange(len(pairs))
    worse = values[:, 1] < values[:, 0]
    ax.vlines(places, values[:, 0], values[:, 1], colors=np.where(worse, VERMILLION, BLUE).tolist(), linewidth=1.0)
    for column, (colour, _, marker) in enumerate((_WITH, _WITHOUT)):
        ax.plot(places, values[:, column], marker, color=colour)
    rest = "" if len(pairs) == len(replay.label_names) else f", the first {len(pairs)} of {len(replay.label_names)}"
    ax.set(title=f"accuracy of each class after round {last.server_round}{rest}", ylabel="percent", ylim=(-4, 104))
    ax.set(xlim=(-0.6, len(pairs) - 0.4), yticks=(0, 50, 100))
    name_classes(ax, list(replay.label_names)[: len(pairs)])
    ax.grid(axis="y")
    ax.set_axisbelow(True)


def _short(text: str) -> str:
    return text if len(text) <= 26 else f"{text[:25]}…"
