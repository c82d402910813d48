"""Near matches for a name that does not exist."""

from collections.abc import Iterable
from difflib import get_close_matches


def near_matches(name: str, known: Iterable[str]) -> str:
    """Return ``" (near: a, b)"``, or an empty string where nothing comes near."""
    matches = get_close_matches(name, [candidate for candidate in known if candidate], n=3, cutoff=0.6)
    return f" (near: {', '.join(matches)})" if matches else ""
