"""Ranked clients as lines of text, as HTML for notebooks, and as a figure. matplotlib is imported when it is drawn."""

import base64
import html
import struct
import textwrap
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tracefl.common.imports import imported
from tracefl.errors import plain
from tracefl.provenance.attribution import ROUNDING, out_of_order

WIDTH = 80
"""Columns of a terminal."""

MOST_SHOWN = 10
"""Inputs that are shown one by one."""

_MOST_CLIENTS = 10
_NAME = 28  # columns of a client's name
_BAR = 90  # pixels of the longest bar
_FOR, _AGAINST = "#0072B2", "#D55E00"  # Okabe and Ito's blue and vermilion, told apart by everybody


class ShownClient(NamedTuple):
    """A client in a ranking.

    Attributes:
        client: Its name.
        weight: Its share of the average; None where that is not shown.
        contribution: What the clients are ranked by, in logits.
        is_exact: Whether that is the exact effect of leaving it out.
        score: 0 to 1; None where it is not shown.
        effect: The exact effect, in logits, where it is known and is not the contribution.
    """

    client: str
    weight: float | None
    contribution: float
    is_exact: bool
    score: float | None
    effect: float | None = None

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> "ShownClient":
        """Return a client of ``Answer.ranked``."""
        exact = row["exact_effect"] is not None
        return cls(str(row["client"]), row["weight"], row["contribution"], exact, row["score"])

    @property
    def known_effect(self) -> float | None:
        """The exact effect, in logits; None where it is not known."""
        return self.contribution if self.is_exact else self.effect

    @property
    def words(self) -> str:
        """The client in a sentence."""
        return f"{'client ' * self.client.isdecimal()}{self.client}"


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

    @property
    def has_effects(self) -> bool:
        """Whether exact effects are known beside contributions that are something else."""
        return any(client.effect is not None for client in self.clients)

    @property
    def marked(self) -> tuple[bool, ...]:
        """Of each client, whether its exact effect contradicts its place."""
        found = out_of_order([client.known_effect for client in self.clients])
        return (found[0] or self._first_is_doubtful, *found[1:]) if found else ()

    @property
    def _first_is_doubtful(self) -> bool:
        effect = self.clients[0].known_effect
        return self.carried_by is not None and effect is not None and effect <= ROUNDING

    @property
    def caveat(self) -> str | None:
        """A sentence where exact effects contradict the order of the clients, or None."""
        said = []
        if self._first_is_doubtful:
            said.append(f"without {self.clients[0].words} the model is as sure, and not all clients were left out")
        late = out_of_order([client.known_effect for client in self.clients])
        if any(late):
            place = late.index(True)
            after = [c for c in self.clients[place + 1 :] if c.known_effect is not None]
            larger = max(after, key=lambda client: client.known_effect or 0.0)
            pair = [f"{c.words} ({_number(c.known_effect or 0.0)})" for c in (larger, self.clients[place])]
            said.append(f"the order is the contributions'; by exact effects {' comes before '.join(pair)}")
        return f"* {'; '.join(said)}" if said else None


def as_text(heading: str, shown: Sequence[Shown], count: int, notes: Sequence[str]) -> str:
    """Return rankings as lines of at most ``WIDTH`` columns.

    Args:
        heading: The first line.
        shown: The inputs that are shown.
        count: How many inputs there are.
        notes: What was assumed.
    """
    lines = _wrapped(heading)
    for each in shown:
        lines += ["", *_wrapped(f"{each.heading}: {each.verdict}", later="  ")]
        if each.text is not None:
            lines.append(f"  {' '.join(each.text.split())}")
        how = "exact" if each.has_effects else ""
        lines.append(f"  {'client':<{_NAME}} {'weight':>7} {'contribution':>13} {how:<8} {'score':>6}")
        lines += [_line(client, each.has_effects, mark) for client, mark in _first(each)]
        if len(each.clients) > _MOST_CLIENTS:
            lines.append(f"  and {len(each.clients) - _MOST_CLIENTS} more clients: ranked() and to_frame() have all")
        lines += _wrapped(each.caveat or "", "  ", "    ")
    if count > len(shown):
        lines += ["", f"and {count - len(shown)} more inputs: to_frame() has all"]
    lines += ["", *(line for note in notes for line in _wrapped(note, "note: ", " " * 6))] if notes else []
    return "\n".join(_cut(plain(line), WIDTH) for line in lines)


def _wrapped(text: str, first: str = "", later: str = "") -> list[str]:
    """Return a sentence as lines of at most ``WIDTH`` columns, none of it cut; ``first`` and ``later`` begin them."""
    return textwrap.wrap(plain(text), WIDTH, initial_indent=first, subsequent_indent=later)


def _first(shown: Shown) -> list[tuple[ShownClient, bool]]:
    """Return the clients that are shown, and whether each is marked."""
    return list(zip(shown.clients, shown.marked, strict=True))[:_MOST_CLIENTS]


def _how(client: ShownClient, with_effects: bool, marked: bool) -> str:
    """Return what stands behind a contribution: what it is, or the exact effect beside it; with a mark."""
    if not with_effects:
        how = "exact" if client.is_exact else "estimate"
    else:
        how = "-" if client.known_effect is None else _number(client.known_effect)
    return f"{how} *" if marked else how


def _line(client: ShownClient, with_effects: bool, marked: bool) -> str:
    weight = "" if client.weight is None else f"{client.weight:.1%}"
    score = "" if client.score is None else f"{client.score:.3f}"
    how = _how(client, with_effects, marked)
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
    said = "".join(f"<p><small>{_escaped(note)}</small></p>" for note in (*more, *notes))
    return f'<div class="tracefl"><p><b>{_escaped(heading)}</b></p>{parts}{said}</div>'


def _escaped(text: str) -> str:
    return html.escape(plain(text, keep="\n"))


def _input_html(shown: Shown) -> str:
    longest = max((abs(client.contribution) for client in shown.clients), default=0.0) or 1.0
    rows = "".join(_row_html(client, longest, _how(client, shown.has_effects, mark)) for client, mark in _first(shown))
    hidden = len(shown.clients) - _MOST_CLIENTS
    rows += f'<tr><td colspan="6">and {hidden} more clients: to_frame() has all</td></tr>' if hidden > 0 else ""
    how = "exact effect" if shown.has_effects else ""
    head = "".join(f"<th>{name}</th>" for name in ("client", "weight", "contribution", how, "", "score"))
    return (
        f"<p>{_escaped(shown.heading)}: <b>{_escaped(shown.verdict)}</b></p>"
        + ("" if shown.text is None else f"<blockquote>{_escaped(shown.text)}</blockquote>")
        + ("" if shown.picture is None else _picture_html(shown.picture))
        + f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
        + ("" if shown.caveat is None else f"<p><small>{_escaped(shown.caveat)}</small></p>")
    )


def _row_html(client: ShownClient, longest: float, how: str) -> str:
    length = round(_BAR * abs(client.contribution) / longest)
    colour = _FOR if client.contribution > 0 else _AGAINST
    bar = f'<div style="width:{length}px;height:0.8em;background:{colour}"></div>'
    weight = "" if client.weight is None else f"{client.weight:.1%}"
    score = "" if client.score is None else f"{client.score:.3f}"
    cells = (_escaped(client.client), weight, _number(client.contribution), how, bar, score)
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
        TypeError: ``ax`` is no Axes.
    """
    names, inputs = [_no_formula(str(client)) for client in clients], len(contributions)
    if ax is None:
        size = (6.4, 0.8 + 0.3 * len(names)) if inputs == 1 else (1.5 + 0.5 * len(names), 1.2 + 0.3 * min(inputs, 30))
        ax = imported("matplotlib.pyplot", "plot()").subplots(figsize=size, layout="constrained")[1]
    elif not isinstance(ax, imported("matplotlib.axes", "plot()").Axes):
        got = repr(ax) if isinstance(ax, str | int) else type(ax).__name__
        raise TypeError(
            f"ax must be matplotlib Axes, got {got}; to write a file: answer.plot().figure.savefig('answer.png')"
        )
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
    ax.set_title(_no_formula(title))
    return ax


def _no_formula(text: str) -> str:
    """Return a text that matplotlib does not take for a formula."""
    return plain(text, keep="\n").replace("$", r"\$")
