"""The style of all figures: those for a paper, one column wide, and the same look, larger, for a screen."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib import pyplot as plt
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from tracefl.report.measure_names import MEASURES

_chosen = str(matplotlib.get_backend(auto_select=False))
if "inline" in _chosen:  # a notebook's: at once, since within a figure's style its settings would end with that
    plt.switch_backend(_chosen)
else:
    matplotlib.use("Agg")  # no display needed, none opened

COLUMN = 3.3
"""Width in inches of a column of a two-column paper."""
POINTS = 7
"""Size of the letters in a paper."""
SCREEN_POINTS = 9.5
"""Size of the letters on a screen."""

# Okabe and Ito's colours, which colour-blind readers tell apart.
BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9"
BLACK, GREY, LIGHT_GREY = "#000000", "#555555", "#999999"
MISSING = "#D9D9D9"
"""Of a cell where nothing was measured, which no map has."""

CONTRIBUTIONS = LinearSegmentedColormap.from_list("contributions", [VERMILLION, "#FFFFFF", BLUE]).with_extremes(
    bad=MISSING
)
"""Contributions in logits, zero in the middle: blue for the prediction, vermillion against it."""
EXAMPLES = LinearSegmentedColormap.from_list("examples", ["#FFFFFF", GREEN]).with_extremes(bad=MISSING)
"""Numbers of examples, from none."""


@dataclass(frozen=True)
class Look:
    """How a measure is drawn, wherever it is.

    Attributes:
        name: As in a legend.
        colour: Of its line and marks.
        line: Its line.
        marker: Its marks.
    """

    name: str
    colour: str
    line: str
    marker: str

    @property
    def marks(self) -> dict[str, Any]:
        """Keywords of a curve."""
        return {"color": self.colour, "linestyle": self.line, "marker": self.marker}


LOOKS = {
    "global_accuracy": Look(MEASURES["global_accuracy"], BLUE, "-", "o"),
    "localization_accuracy": Look(MEASURES["localization_accuracy"], VERMILLION, "-", "s"),
    "chance_accuracy": Look(MEASURES["chance_accuracy"], GREY, ":", "x"),
    "top_holder_accuracy": Look(MEASURES["top_holder_accuracy"], GREEN, "-", "^"),
    "counterfactual_agreement": Look(MEASURES["counterfactual_agreement"], PURPLE, "-", "d"),
}
"""Column of rounds.csv to its look."""


@contextmanager
def paper_style() -> Iterator[None]:
    """Draw for a column of a paper within the block."""
    with plt.rc_context(_look(POINTS, 1.0)):
        yield


@contextmanager
def screen_style() -> Iterator[None]:
    """Draw for a screen within the block: the same look, larger."""
    with plt.rc_context(_look(SCREEN_POINTS, SCREEN_POINTS / POINTS)):
        yield


def _look(points: float, scale: float) -> Any:
    """Return matplotlib's settings: one size of letters, thin lines, no box around a plot.

    Args:
        points: Size of the letters.
        scale: Of lines and marks, 1 for a paper.
    """
    letters = ("font.size", "axes.titlesize", "axes.labelsize", "xtick.labelsize", "ytick.labelsize")
    lengths = {
        "axes.linewidth": 0.6,
        "axes.titlepad": 3,
        "axes.labelpad": 2,
        "grid.linewidth": 0.4,
        "lines.linewidth": 1.0,
        "lines.markersize": 2.8,
        **{
            f"{axis}tick.major.{what}": size
            for axis in "xy"
            for what, size in (("width", 0.6), ("size", 2), ("pad", 2))
        },
        "figure.constrained_layout.h_pad": 0.03,
        "figure.constrained_layout.w_pad": 0.03,
    }
    return {
        **dict.fromkeys((*letters, "legend.fontsize", "figure.titlesize", "figure.labelsize"), points),
        **{key: scale * length for key, length in lengths.items()},
        "text.parse_math": False,  # a class or a data set may be called $x$
        "axes.spines.top": False,
        "axes.spines.right": False,
        "grid.alpha": 0.35,
        "legend.frameon": False,
        "legend.handlelength": 1.6,
        "legend.handletextpad": 0.5,
        "legend.columnspacing": 1.0,
        "legend.labelspacing": 0.25,
        "savefig.dpi": 130,
        "pdf.fonttype": 42,  # fonts that can be searched and that publishers accept
    }


def write_figure(figure: Figure, path: Path) -> None:
    """Write a figure in the format of the file's suffix, completely or not at all, and close it.

    What stood in the file's place is replaced, so that a link there leads nowhere.
    """
    _write(figure, [path])


def save_figure(figure: Figure, path: Path) -> list[Path]:
    """Write a figure as PNG (300 dots an inch) and PDF, and close it.

    Args:
        figure: The figure.
        path: Where to write it, without a suffix.

    Returns:
        The files, each written completely or not at all.
    """
    paths = [path.with_name(f"{path.name}.{kind}") for kind in ("png", "pdf")]
    _write(figure, paths, dpi=300)
    return paths


def _write(figure: Figure, paths: Sequence[Path], **settings: Any) -> None:
    drafts = [path.with_name(f".{path.name}.partial") for path in paths]
    try:
        for path, draft in zip(paths, drafts, strict=True):
            draft.unlink(missing_ok=True)  # a link there would be followed
            kind = path.suffix[1:].lower()
            undated = {"CreationDate": None} if kind == "pdf" else None  # the same run gives the same file
            figure.savefig(draft, format=kind, metadata=undated, **settings)
        for path, draft in zip(paths, drafts, strict=True):
            draft.replace(path)
    finally:
        plt.close(figure)
        for draft in drafts:
            draft.unlink(missing_ok=True)
