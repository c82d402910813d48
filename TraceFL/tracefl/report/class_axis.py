"""Class names on a figure's axis."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes

from tracefl.errors import plain

_MOST = 14  # most letters of a name


def short_names(names: Sequence[str]) -> list[str]:
    """Return names that fit an axis, as plain text."""
    names = [plain(name) for name in names]
    return [name if len(name) <= _MOST else f"{name[: _MOST - 1]}…" for name in names]


def name_classes(axes: Axes, names: Sequence[str], **look: Any) -> None:
    """Write the class names below a plot, long names at an angle; no name is read as a formula.

    Args:
        axes: A plot with one column for each class, from 0.
        names: The classes' names.
        look: Text properties, as in matplotlib.
    """
    axes.set_xticks(range(len(names)), short_names(names), parse_math=False, **look)
    if any(len(name) > 3 for name in names):
        for label in axes.get_xticklabels():
            label.set(rotation=60, ha="right", rotation_mode="anchor")
