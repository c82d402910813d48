"""The style of figures for a paper: one column wide, 7-point letters, colours that colour-blind readers tell apart."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # no display needed, none opened

from matplotlib import pyplot as plt
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

COLUMN = 3.3
"""Width in inches of a column of a two-column paper."""
POINTS = 7
"""Size of the letters."""

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

_LOOK: Any = {
    "font.size": POINTS,
    "axes.titlesize": POINTS,
    "axes.labelsize": POINTS,
    "xtick.labelsize": POINTS,
    "ytick.labelsize": POINTS,
    "legend.fontsize": POINTS,
    "figure.titlesize": POINTS,
    "figure.labelsize": POINTS,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlepad": 3,
    "axes.labelpad": 2,
    "grid.linewidth": 0.4,
    "grid.alpha": 0.35,
    "lines.linewidth": 1.0,
    "lines.markersize": 2.8,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2,
    "ytick.major.size": 2,
    "xtick.major.pad": 2,
    "ytick.major.pad": 2,
    "legend.frameon": False,
    "legend.handlelength": 1.6,
    "legend.handletextpad": 0.5,
    "legend.columnspacing": 1.0,
    "legend.labelspacing": 0.25,
    "figure.constrained_layout.h_pad": 0.03,
    "figure.constrained_layout.w_pad": 0.03,
    "pdf.fonttype": 42,  # fonts that can be searched and that publishers accept
}


@contextmanager
def paper_style() -> Iterator[None]:
    """Use the paper's style within the block."""
    with plt.rc_context(_LOOK):
        yield


def save_figure(figure: Figure, path: Path) -> list[Path]:
    """Write a figure as PNG (300 dots an inch) and PDF, and close it.

    Args:
        figure: The figure.
        path: Where to write it, without a suffix.

    Returns:
        The files, each written completely or not at all.
    """
    paths = [path.with_name(f"{path.name}.{kind}") for kind in ("png", "pdf")]
    drafts = [file.with_name(f".{file.name}.partial") for file in paths]
    try:
        for file, draft in zip(paths, drafts, strict=True):
            nothing = {"CreationDate": None} if file.suffix == ".pdf" else None  # the same run gives the same file
            figure.savefig(draft, format=file.suffix[1:], dpi=300, metadata=nothing)
        for file, draft in zip(paths, drafts, strict=True):
            draft.replace(file)
    finally:
        plt.close(figure)
        for draft in drafts:
            draft.unlink(missing_ok=True)
    return paths
