"""Ranked clients as lines of text, as HTML for notebooks, and as a figure. matplotlib is imported when it is drawn."""

import base64
import html
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tracefl.common.imports import imported

WIDTH = 80
"""Columns of a terminal."""

MOST_SHOWN = 10
"""Inputs that are shown one by one."""

_MOST_CLIENTS = 10
_NAME = 28  # columns of a client's name
_BAR = 90  # pixels of the longest bar
_FOR, _AGAINST = "#0072B2", "#D55E00"  # Okabe and Ito's blue and vermilion, told apart by everybody


class ShownClient(NamedTuple):
    """A client in a ranking: its share of the average, its contribution in logits, and whether that is exact."""

    client: str
    weight: float | None
    contribution: float
    is_exact: bool
    score: float | None

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> "ShownClient":
        """Return a client of ``Answer.ranked``."""
        exact = row["exact_effect"] is not None
        return cls(str(row["client"]), row["weight"], row["contribution"], exact, row["score"])


class Shown(NamedTuple):
    """One input.

    Attributes:
        heading: What is predicted.
        clients: By rank.
        carried_by: The client that carries the prediction; None for nobody.
        text: The input, where it is a text.
        picture: ``(1 or 3, H, W)`` where it is an image.
    """

    heading: str
    clients: Sequence[ShownClient]
    carried_by: Any
    text: str | None = None
    picture: Tensor | None = None

    @property
    def verdict(self) -> str:
        """One line: who carries it."""
        if self.carried_by is None:
            return "carried by nobody: it is as sure without any one client"
        name = str(self.carried_by)
        return f"carried by {'client ' * name.isdecimal()}{name}"


def as_text(heading: str, shown: Sequence[Shown], count: int, notes: Sequence[str]) -> str:
    """Return rankings as lines of at most ``WIDTH`` columns.

    Args:
        heading: The first line.
        shown: The inputs that are shown.
        count: How many inputs there are.
        notes: What was assumed.
    """
    lines = [heading]
    for each in shown:
        lines += ["", f"{each.heading}: {each.verdict}"]
        if each.text is not None:
            lines.append(f"  {' '.join(each.text.split())}")
        lines.append(f"  {'client':<{_NAME}} {'weight':>7} {'contribution':>13}          {'score':>6}")
        lines += [_line(client) for client in each.clients[:_MOST_CLIENTS]]
        if len(each.clients) > _MOST_CLIENTS:
            lines.append(f"  and {len(each.clients) - _MOST_CLIENTS} more clients: ranked() and to_frame() have all")
    if count > len(shown):
        lines += ["", f"and {count - len(shown)} more inputs: to_frame() has all"]
    lines += ["", *(f"note: {note}" for note in notes)] if notes else []
    return "\n".join(_cut(line, WIDTH) for line in lines)


def _line(client: ShownClient) -> str:
    weight = "" if client.weight is None else f"{client.weight:.1%}"
    score = "" if client.score is None else f"{client.score:.3f}"
    how = "exact" if client.is_exact else "estimate"
    number = _number(client.contribution)
    return f"  {_cut(client.client, _NAME):<{_NAME}} {weight:>7} {number:>13} {how:<8} {score:>6}"


def _number(contribution: float) -> str:
    """Return a contribution with three decimals, or with two digits where these would be zeros."""
    small = 0 < abs(contribution) < 5e-4
    return f"{contribution:+.1e}" if small else f"{contribution:+.3f}"


def _cut(text: str, columns: int) -> str:
    return text if len(text) <= columns else text[: columns - 3] + "..."


def as_html(heading: str, shown: Sequence[Shown], count: int, notes: Sequence[str]) -> str:
    """Return rankings as HTML without scripts or outside resources; arguments as those of ``as_text``."""
    more = [f"and {count - len(shown)} more inputs: to_frame() has all"] if count > len(shown) else []
    parts = "".join(_input_html(each) for each in shown)
    said = "".join(f"<p><small>{html.escape(note)}</small></p>" for note in (*more, *notes))
    return f'<div class="tracefl"><p><b>{html.escape(heading)}</b></p>{parts}{said}</div>'


def _input_html(shown: Shown) -> str:
    longest = max((abs(client.contribution) for client in shown.clients), default=0.0) or 1.0
    rows = "".join(_row_html(client, longest) for client in shown.clients[:_MOST_CLIENTS])
    hidden = len(shown.clients) - _MOST_CLIENTS
    rows += f'<tr><td colspan="6">and {hidden} more clients: to_frame() has all</td></tr>' if hidden > 0 else ""
    head = "".join(f"<th>{name}</th>" for name in ("client", "weight", "contribution", "", "", "score"))
    return (
        f"<p>{html.escape(shown.heading)}: <b>{html.escape(shown.verdict)}</b></p>"
        + ("" if shown.text is None else f"<blockquote>{html.escape(shown.text)}</blockquote>")
        + ("" if shown.picture is None else _picture_html(shown.picture))
        + f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    )


def _row_html(client: ShownClient, longest: float) -> str:
    length = round(_BAR * abs(client.contribution) / longest)
    colour = _FOR if client.contribution > 0 else _AGAINST
    bar = f'<div style="width:{length}px;height:0.8em;background:{colour}"></div>'
    weight = "" if client.weight is None else f"{client.weight:.1%}"
    score = "" if client.score is None else f"{client.score:.3f}"
    how = "exact" if client.is_exact else "estimate"
    cells = (html.escape(client.client), weight, _number(client.contribution), how, bar, score)
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def _picture_html(picture: Tensor) -> str:
    scale = max(1, 96 // max(picture.shape[1:]))
    size = f'width="{scale * picture.shape[2]}" height="{scale * picture.shape[1]}"'
    data = base64.b64encode(png(picture)).decode()
    return f'<img alt="the input" {size} style="image-rendering:pixelated" src="data:image/png;base64,{data}">'


def png(picture: Tensor) -> bytes:
    """Return an image as a PNG file.

    By hand, since the library is installed without Pillow: a header, rows behind a zero byte each, compressed, an end.

    Args:
        picture: ``(1 or 3, H, W)``; its darkest value becomes black, its brightest white, because what normalized
            inputs were before is not known.
    """
    values = picture.double().nan_to_num()
    low, high = values.min(), values.max()
    pixels = ((values - low) / (high - low).clamp_min(1e-12) * 255).round().to(torch.uint8)
    channels, height, width = pixels.shape
    rows = pixels.permute(1, 2, 0).reshape(height, width * channels)
    raw = torch.cat([torch.zeros(height, 1, dtype=torch.uint8), rows], dim=1)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, {1: 0, 3: 2}[channels], 0, 0, 0)
    body = zlib.compress(bytes(raw.flatten().tolist()))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def draw(ax: Any, clients: Sequence[Any], contributions: Tensor, exact: Tensor, title: str) -> Any:
    """Draw signed contributions: of one input as bars, largest on top, of several as a map; returns matplotlib's Axes.

    Args:
        ax: Where to draw; None for a new figure.
        clients: The K clients.
        contributions: ``(B, K)`` in logits; NaN is left out.
        exact: ``(B, K)`` bool: what is no estimate; estimates are drawn pale.
        title: Above it.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    names, inputs = [str(client) for client in clients], len(contributions)
    if ax is None:
        size = (6.4, 0.8 + 0.3 * len(names)) if inputs == 1 else (1.5 + 0.5 * len(names), 1.2 + 0.3 * min(inputs, 30))
        ax = imported("matplotlib.pyplot", "plot()").subplots(figsize=size, layout="constrained")[1]
    if inputs == 1:
        values = contributions[0].tolist()
        order = contributions[0].nan_to_num(-torch.inf).argsort(stable=True).tolist()
        bars = ax.barh([names[k] for k in order], [values[k] for k in order])
        for bar, k in zip(bars, order, strict=True):
            bar.set(color=_FOR if values[k] > 0 else _AGAINST, alpha=1.0 if exact[0, k] else 0.55)
        ax.axvline(0, color="black", linewidth=0.8)
        ax.set_xlabel("contribution, logits" + ("" if exact.all() else " (pale: estimated)"))
    else:
        bound = float(contributions.nan_to_num().abs().max()) or 1.0
        drawn = ax.imshow(contributions.tolist(), cmap="PuOr", vmin=-bound, vmax=bound, aspect="auto")
        ax.set_xticks(range(len(names)), names, rotation=90 if max(map(len, names)) > 3 else 0)
        ax.set(xlabel="client", ylabel="input")
        ax.figure.colorbar(drawn, ax=ax, label="contribution, logits")
    ax.set_title(title)
    return ax
