"""The chart of accuracies over the rounds, laid out for an SVG that takes its colours from the page."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tracefl.common.words import counted
from tracefl.report.measure_names import MEASURES

CURVES = {"global_accuracy": "accuracy", "localization_accuracy": "localization", "chance_accuracy": "chance"}
"""Column of rounds.csv to the class of its curve."""

WIDTH, PHONE, HEIGHT = 960, 400, 300
"""Widths for a screen and for a phone, and the height."""
_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 14, 10, 40  # margins
_MARK = 15  # least width between marks
_TICK = 75  # and between rounds that are named


@dataclass(frozen=True)
class Point:
    """A measured value: its position, and its text."""

    x: float
    y: float
    words: str


@dataclass(frozen=True)
class Curve:
    """A curve in pieces: a round without a value leaves a gap, never a zero.

    Attributes:
        name: What it shows.
        style: Class of its colour.
        pieces: Stretches of consecutive rounds.
        marks: Whether every point is marked; otherwise only isolated points are.
    """

    name: str
    style: str
    pieces: tuple[tuple[Point, ...], ...]
    marks: bool


@dataclass(frozen=True)
class Chart:
    """What the template draws, in a coordinate system of ``width`` x ``HEIGHT``.

    Attributes:
        curves: The curves with at least one value.
        x_ticks: (position, round).
        y_ticks: (position, percent).
        bands: (left, width, round) of the suspicious rounds.
        gaps: What was not measured, one line each.
        width: Of the whole.
        left, right, top, bottom: Edges of the field.
    """

    curves: tuple[Curve, ...]
    x_ticks: tuple[tuple[float, int], ...]
    y_ticks: tuple[tuple[float, int], ...]
    bands: tuple[tuple[float, float, int], ...]
    gaps: tuple[str, ...]
    width: int
    right: float
    left: float = _LEFT
    top: float = _TOP
    bottom: float = HEIGHT - _BOTTOM


def rounds_chart(rows: Sequence[Mapping[str, Any]], suspicious: Collection[int], width: int = WIDTH) -> Chart:
    """Lay out the accuracies over the rounds.

    Args:
        rows: Rows of rounds.csv, fractions 0 to 1; None where nothing was measured. At least one.
        suspicious: Rounds to highlight with a band.
        width: Width of the whole.
    """
    rounds = [int(row["round"]) for row in rows]
    first, last = rounds[0], max(rounds[-1], rounds[0] + 1)
    a_round = (width - _LEFT - _RIGHT) / (last - first + 1)

    def x(server_round: int) -> float:
        return round(_LEFT + (server_round - first + 0.5) * a_round, 1)

    def y(fraction: float) -> float:
        return round(_TOP + (1 - fraction) * (HEIGHT - _TOP - _BOTTOM), 1)

    curves, gaps = [], []
    for column, style in CURVES.items():
        name = MEASURES[column]
        pieces: list[list[Point]] = [[]]
        for before, row in zip((first - 1, *rounds), rows, strict=False):
            value = row[column]
            if row["round"] != before + 1:
                pieces.append([])
            if value is None or not math.isfinite(value):
                pieces.append([])
            else:
                words = f"round {row['round']}: {name} {100 * value:.1f}%"
                pieces[-1].append(Point(x(row["round"]), y(value), words))
        measured = sum(map(len, pieces))
        if measured:
            kept = tuple(tuple(piece) for piece in pieces if piece)
            curves.append(Curve(name, style, kept, len(rows) * _MARK <= width))
        if measured < len(rows):
            gaps.append(f"{name}: {len(rows) - measured} of {len(rows)} rounds have no value")
    if rounds[-1] - first + 1 > len(rounds):
        gaps.append(
            f"{counted(rounds[-1] - first + 1 - len(rounds), 'round')} between {first} and {rounds[-1]} not recorded"
        )
    ticks = _ticks(rounds, width // _TICK)
    bands = [(round(x(n) - a_round / 2, 1), round(a_round, 1), n) for n in rounds if n in suspicious]
    return Chart(
        curves=tuple(curves),
        x_ticks=tuple((x(n), n) for n in ticks),
        y_ticks=tuple((y(percent / 100), percent) for percent in (0, 25, 50, 75, 100)),
        bands=tuple(bands),
        gaps=tuple(gaps),
        width=width,
        right=width - _RIGHT,
    )


def _ticks(rounds: Sequence[int], most: int) -> list[int]:
    """Return all rounds if they are at most ``most``, else the multiples of 1, 2 or 5 times a power of ten."""
    steps = (factor * 10**power for power in range(9) for factor in (1, 2, 5))
    step = next(step for step in steps if len(rounds) <= most * step)
    return [n for n in rounds if n % step == 0] or [rounds[0]]
