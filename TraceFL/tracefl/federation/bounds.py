"""Bounds on what one client can do to a round's average: on how far it moves the model, and on its weight.

Both are multiples of the round's median, see ``provenance/norms.py``. A client above a bound is not left out: its
update, or its weight, is brought down to it.
"""

from collections.abc import Collection, Mapping
from statistics import median_low

from torch import Tensor


def bounded(
    state: Mapping[str, Tensor], previous: Mapping[str, Tensor], names: Collection[str], share: float
) -> dict[str, Tensor]:
    """Return a state dict whose change of some tensors is a share of what it was.

    Args:
        state: A client's.
        previous: What it started from.
        names: The tensors to change less.
        share: 0 to 1.
    """
    found = dict(state)
    for name in names:
        start = previous[name].double()
        found[name] = (start + share * (state[name].double() - start)).to(state[name].dtype)
    return found


def capped_counts(counts: Mapping[str, float], multiple: float | None, largest_share: float | None) -> dict[str, float]:
    """Return the numbers of examples by which a round's clients are weighted.

    Args:
        counts: Client id to its number of examples, above 0.
        multiple: Of the median number, which none exceeds; None for no such bound.
        largest_share: Share of the sum that none exceeds, in (0, 1]: where that is less than an even share, all are
            weighted alike. None for no such bound.
    """
    most = float("inf") if multiple is None else multiple * median_low(counts.values())
    found = {client_id: min(count, most) for client_id, count in counts.items()}
    if largest_share is not None:
        most = _largest_within(sorted(found.values(), reverse=True), largest_share)
        found = {client_id: min(count, most) for client_id, count in found.items()}
    return found


def _largest_within(counts: list[float], share: float) -> float:
    """Return the largest count, of descending ones, at which none exceeds a share of the sum of all."""
    for capped in range(len(counts)):
        if share * capped >= 1:
            break
        most = share * sum(counts[capped:]) / (1 - share * capped)
        if counts[capped] <= most:
            return most if capped else counts[0]
    return counts[-1]
