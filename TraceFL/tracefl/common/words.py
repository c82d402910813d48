"""Numbers formatted for people, and others' words made fit to be repeated."""

from collections.abc import Sequence
from textwrap import fill

NARROW = 80
"""Columns of the narrowest usual terminal."""

MOST_CHARACTERS = 300
"""Of what somebody else says, such as a client, so many characters are repeated."""


def repeated(words: object, most: int = MOST_CHARACTERS) -> str:
    """Return somebody else's words on one line, without control characters, and cut where they are long.

    Args:
        words: What was said, of any length.
        most: Characters that are kept.
    """
    text = str(words)
    kept = text[: 4 * most]  # enough where most of it is space
    line = " ".join("".join(each if each.isprintable() else " " for each in kept).split())
    return line if len(line) <= most and len(kept) == len(text) else f"{line[:most]}..."


def wrapped(text: str, indent: str = "", columns: int = NARROW) -> str:
    """Return a text in lines of so many columns, broken at blanks alone: a longer word, such as a path, stays whole.

    Args:
        text: The text; its own line breaks do not count.
        indent: What its lines but the first begin with.
        columns: Of a line, at most.
    """
    return fill(text, columns, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False)


def duration(seconds: float | None) -> str:
    """Return seconds as text such as ``1h05m`` or ``40s``, ``-`` where unknown."""
    if seconds is None:
        return "-"
    minutes, hours = round(seconds / 60), round(seconds / 60) // 60
    if seconds < 100:
        return f"{seconds:.0f}s"
    return f"{hours}h{minutes % 60:02d}m" if hours else f"{minutes}m"


def counted(number: int, thing: str) -> str:
    """Return a number of things as text such as ``1 round`` or ``3 rounds``."""
    return f"{number} {thing}{'' if number == 1 else 's'}"


def percent(fraction: float | None) -> str:
    """Return a fraction as text in percent, ``-`` where nothing was measured."""
    return "-" if fraction is None else f"{100 * fraction:.1f}%"


def numbers(found: Sequence[int]) -> str:
    """Return ascending numbers as text such as ``1 to 4, 6``."""
    runs: list[list[int]] = []
    for number in found:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(first) if first == last else f"{first} to {last}" for first, last in runs)
