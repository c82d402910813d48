"""Figure of a fault in the clients' examples: how many of each class each client trains on, before and after."""

from pathlib import Path

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from torch import Tensor

from tracefl.learning.datasets import FederatedData
from tracefl.learning.faults import InjectedFault
from tracefl.report.class_axis import name_classes
from tracefl.report.measure_names import EXAMPLES_OF_CLASS
from tracefl.report.style import EXAMPLES, POINTS, VERMILLION, screen_style, write_figure

_MOST_CLIENTS = 40  # rows that can still be told apart
_MOST_NUMBERS = 20  # columns whose cells still have room for their number
_MARK = VERMILLION  # a colour that no cell has


@screen_style()
def draw_label_counts(fault: InjectedFault, data: FederatedData, path: Path) -> None:
    """Draw the label counts before and after a fault, with faulty clients marked; nothing for a fault in the weights.

    Args:
        fault: The fault with its changes.
        data: The run's data; ``label_counts`` counts the true labels. If there are many clients, only the first are
            drawn, and all faulty ones.
        path: The picture.
    """
    if not fault.truth.in_examples:
        return
    before, after = data.label_counts, data.label_counts.clone()
    for change in fault.changes:
        after[int(change.client)] = after.new_tensor(change.faulty_label_counts)
    faulty = [int(client) for client in fault.truth.clients]
    honest = [client for client in range(len(before)) if client not in faulty]
    shown = sorted(faulty + honest[: max(0, _MOST_CLIENTS - len(faulty))])
    classes = data.num_classes
    size = (2 * max(3.2, 0.36 * classes) + 2.4, max(2.6, 0.27 * len(shown)) + 1.8)
    figure, (left, right) = plt.subplots(1, 2, figsize=size, layout="constrained", sharey=True)
    highest = int(max(before[shown].max(), after[shown].max()))
    for axes, counts, title in ((left, before, "true labels"), (right, after, "labels trained on when faulty")):
        image = axes.imshow(counts[shown].numpy(), aspect="auto", cmap=EXAMPLES, vmin=0, vmax=highest)
        axes.set(xlabel="class", title=title)
        if classes <= _MOST_NUMBERS:
            _write_numbers(axes, counts[shown], highest)
        for row, client in enumerate(shown):
            if client in faulty:
                edge = Rectangle((-0.5, row - 0.5), classes, 1, fill=False, edgecolor=_MARK, linewidth=2.2)
                edge.set_clip_on(False)  # at the plot's border, half of the line is outside
                axes.add_patch(edge)
        name_classes(axes, data.label_names)
    left.set_ylabel("client")
    left.set_yticks(range(len(shown)), [str(client) for client in shown])
    for text, client in zip(left.get_yticklabels(), shown, strict=True):
        if client in faulty:
            text.set(color=_MARK, fontweight="bold")
    figure.colorbar(image, ax=(left, right), label=EXAMPLES_OF_CLASS, aspect=30, pad=0.02)
    rest = "" if len(shown) == len(before) else f"; {len(shown)} of {len(before)} clients"
    plural = "client" if len(faulty) == 1 else "clients"
    figure.suptitle(
        f"{fault.truth.name.replace('_', ' ')} on {plural} {', '.join(map(str, faulty))} "
        f"from round {fault.truth.from_round}{rest}",
        wrap=True,
    )
    write_figure(figure, path)


def _write_numbers(axes: Axes, counts: Tensor, highest: int) -> None:
    """Write each count into its cell."""
    for row, client_counts in enumerate(counts.tolist()):
        for column, count in enumerate(client_counts):
            if count:
                colour = "white" if count > 0.8 * highest else "black"
                axes.text(column, row, str(count), ha="center", va="center", fontsize=POINTS, color=colour)
