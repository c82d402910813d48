"""An explanation of one prediction as a figure: the input, the classes, the ranked clients, and their layers."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from tracefl.common.words import percent
from tracefl.provenance import ClientPart, Explanation
from tracefl.questions.one_input import ExplainedInput, Question
from tracefl.report.explanation import by_part, class_words, group_layers
from tracefl.report.measure_names import CONTRIBUTION, EXACT_EFFECT
from tracefl.report.style import BLUE, CONTRIBUTIONS, LIGHT_GREY, ORANGE, screen_style, write_figure

CLIENTS_DRAWN = 15
_CLASSES_DRAWN = 5


@screen_style()
def draw_explanation(answer: ExplainedInput, path: Path) -> None:
    """Draw an explanation, in the format of the file's suffix."""
    question, found, _, names = answer
    clients = found.clients[:CLIENTS_DRAWN]
    parts = group_layers(found.layers) if found.layers else {}
    height = 0.9 + 0.36 * len(clients) + 0.05 * max(map(len, parts), default=0)
    figure = plt.figure(figsize=(11.5, 3.4 + height), layout="constrained")
    # Separate rows, so that long class names take no room from the clients.
    top, bottom = figure.subfigures(2, 1, squeeze=False, height_ratios=(2.4, 0.4 + height))[:, 0]
    given, classes = top.subplots(1, 2)
    _draw_input(given, question)
    _draw_classes(classes, found, names)
    bars, *heat = bottom.subplots(1, 2 if parts else 1, width_ratios=(1, 1.25) if parts else None, squeeze=False)[0]
    _draw_clients(bars, found, clients, names)
    for ax in heat:
        _draw_layers(ax, clients, parts)
    figure.suptitle(
        f"Predicted {class_words(found.predicted, names)}, probability {percent(found.probability)}: "
        f"carried in round {found.server_round} by "
        + ("nobody" if found.responsible is None else f"client {found.responsible}"),
        fontweight="bold",
    )
    entries = sorted(zip(*reversed(bars.get_legend_handles_labels()), strict=True), key=lambda entry: entry[0])
    words, handles = zip(*entries, strict=True)
    bottom.legend(handles, words, loc="outside lower left", ncols=3)
    write_figure(figure, path)


def _draw_input(ax: Axes, question: Question) -> None:
    ax.set_axis_off()
    label = "" if question.label is None else f", labelled {question.label}"
    ax.set_title(f"{question.description}{label}")
    if question.pixels is not None:
        ax.imshow(question.pixels.permute(1, 2, 0).numpy(), interpolation="nearest")
        return
    lines = textwrap.wrap(question.text or "", 62)
    shown = [*lines[:9], "…"] if len(lines) > 10 else lines
    ax.text(0.5, 0.95, "\n".join(shown), ha="center", va="top", transform=ax.transAxes)


def _draw_classes(ax: Axes, found: Explanation, names: Sequence[str]) -> None:
    """Draw the likeliest classes, and the one they are compared with."""
    order = sorted(range(len(names)), key=lambda number: -found.probabilities[number])[:_CLASSES_DRAWN]
    if found.against is not None and found.against not in order:
        order[-1] = found.against
    colours = {found.predicted: BLUE, found.against: ORANGE}
    values = [100 * found.probabilities[number] for number in order]
    ax.barh(range(len(order)), values, color=[colours.get(number, LIGHT_GREY) for number in order], height=0.65)
    for place, value in enumerate(values):
        ax.text(value + 1, place, f"{value:.1f}", va="center")
    ax.set_yticks(range(len(order)), [_short(class_words(number, names), 26) for number in order])
    ax.invert_yaxis()
    ax.set(xlim=(0, 112), xticks=(0, 25, 50, 75, 100), xlabel="probability, percent")


def _draw_clients(ax: Axes, found: Explanation, clients: Sequence[ClientPart], names: Sequence[str]) -> None:
    """Draw the contributions, the effects of leaving clients out, and the lead over the other class."""
    rows, contradicted = range(len(clients)), found.contradicted
    high = 0.36 if found.against is not None else 0.68
    shift = 0.0 if found.against is None else high / 2
    ax.barh(
        [place - shift for place in rows],
        [client.contribution for client in clients],
        height=high,
        color=BLUE,
        label="contribution",
    )
    if found.against is not None:
        lead = [client.against or 0.0 for client in clients]
        ax.barh(
            [place + shift for place in rows],
            lead,
            height=high,
            color=ORANGE,
            label=f"contribution to the lead over {_short(class_words(found.against, names), 20)}",
        )
    exact = [(client.removal.effect, place - shift) for place, client in enumerate(clients) if client.removal]
    exact += [
        (client.removal.against_effect, place + shift)
        for place, client in enumerate(clients)
        if client.removal and client.removal.against_effect is not None
    ]
    if exact:
        computed, everyone = sum(client.removal is not None for client in found.clients), len(found.clients)
        some = "" if computed == everyone else f" ({computed} of {everyone})"
        ax.plot(*zip(*exact, strict=True), "D", color="black", label=f"{EXACT_EFFECT}{some}")
    late = [(c.removal.effect, n - shift) for n, c in enumerate(clients) if c.removal and c.client_id in contradicted]
    if late:
        ax.plot(*zip(*late, strict=True), "D", color="black", markerfacecolor="white", label="* against the order")
    ax.axvline(0, color="black", linewidth=0.8)
    ax.set_yticks(rows, [_client_words(client) for client in clients])
    words = "\n".join([CONTRIBUTION, *textwrap.wrap(found.caveat or "", 60)])
    ax.set(ylim=(len(clients) - 0.5, -0.5), xlabel=words)
    more = "" if len(clients) == len(found.clients) else f", the first {len(clients)}"
    holders = found.holders_fraction
    share = "" if holders is None else f"; {percent(holders)} hold the class"
    ax.set_title(f"the round's {len(found.clients)} clients{more}{share}")
    ax.grid(axis="x")
    ax.set_axisbelow(True)


def _draw_layers(ax: Axes, clients: Sequence[ClientPart], parts: dict[str, list[int]]) -> None:
    """Draw what each part of the network adds, in the rows of the clients' bars."""
    values = [by_part(client, parts) for client in clients]
    most = max(abs(value) for row in values for value in row) or 1.0
    image = ax.imshow(values, aspect="auto", cmap=CONTRIBUTIONS, vmin=-most, vmax=most, interpolation="nearest")
    ax.set_xticks(range(len(parts)), _without_prefix(list(parts)), rotation=50, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(len(clients)), [client.client_id for client in clients])
    ax.set_ylabel("client")
    ax.set_title("where in the network each client's estimated contribution enters")
    colours = ax.figure.colorbar(image, ax=ax, pad=0.02)
    colours.set_label(CONTRIBUTION)


def _client_words(client: ClientPart) -> str:
    held = "" if client.held is None else f", holds {client.held}"
    return f"client {client.client_id}{held}"


def _without_prefix(names: Sequence[str]) -> list[str]:
    """Remove the prefix that most names share, up to a dot, such as a transformer's ``transformer.h``."""
    prefixes = {name[: place + 1] for name in names for place, letter in enumerate(name) if letter == "."}
    shared = [p for p in prefixes if 2 * sum(name.startswith(p) for name in names) > len(names)]
    longest = max(shared, key=len, default="")
    return [name.removeprefix(longest) for name in names]


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
