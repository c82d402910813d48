"""Suggestions for a misspelt name."""

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(name: object, choices: Iterable[str]) -> str:
    """Return ``"; did you mean 'a' or 'b'?"`` for the choices nearest to ``name``, or an empty string."""
    near = get_close_matches(str(name), [choice for choice in choices if choice], n=3)
    return f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
