"""The page's two maps as a picture, for W&B."""

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Colormap
from matplotlib.figure import Figure
from PIL import Image

from tracefl.report.class_axis import name_classes
from tracefl.report.page.heat import MINUS, Cell, HeatMap
from tracefl.report.style import CONTRIBUTIONS, EXAMPLES, MISSING

_DEEP = 0.6  # from here on a cell's text is white


def draw_heat_map(heat: HeatMap) -> Image.Image:
    """Draw both maps side by side; without pyplot, so safe in any thread."""
    width = 0.36 * len(heat.classes) + 1.2
    figure = Figure(figsize=(2 * max(3.2, width), max(2.6, 0.27 * len(heat.rows)) + 1.9), layout="constrained", dpi=120)
    left, right = figure.subplots(1, 2, sharey=True)
    _draw(
        left,
        heat,
        [row.held for row in heat.rows],
        EXAMPLES,
        0,
        f"training examples of the class\n0 to {heat.most_held}",
    )
    most = heat.most_contributed
    scale = "no input was traced" if most is None else f"mean, {MINUS}{most:.3g} to +{most:.3g} logits"
    title = f"contribution to what was predicted as the class\n{scale}"
    _draw(right, heat, [row.contributed for row in heat.rows], CONTRIBUTIONS, -1, title)
    left.set_ylabel("client")
    left.set_yticks(range(len(heat.rows)), [f"{row.name} {row.note}".strip() for row in heat.rows], fontsize=8)
    figure.supxlabel("; ".join(("class; grey: no traced input; italics: not settled", *heat.not_shown)), fontsize=8)
    FigureCanvasAgg(figure)
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return Image.open(file)


def _draw(axes: Axes, heat: HeatMap, rows: Sequence[Sequence[Cell]], colours: Colormap, least: int, title: str) -> None:
    levels = np.full((len(rows), len(heat.classes)), np.nan)
    for i, row in enumerate(rows):
        for j, cell in enumerate(row):
            if cell.level is None:
                continue
            levels[i, j] = cell.level
            colour = "white" if abs(cell.level) > _DEEP else "black"
            style = "italic" if cell.is_open else "normal"
            axes.text(j, i, cell.text, ha="center", va="center", fontsize=7, color=colour, style=style)
    axes.set_facecolor(MISSING)
    axes.imshow(np.ma.masked_invalid(levels), aspect="auto", cmap=colours, vmin=least, vmax=1, interpolation="nearest")
    axes.set_title(title, fontsize=9)
    name_classes(axes, [name for _, name in heat.classes], fontsize=8)
