"""What each client counts for: its share p_k of the average, and the factor that a weighting makes of it."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from torch import Tensor

from tracefl.provenance.options import WEIGHTINGS, Weighting
from tracefl.provenance.record import ClientId

Sizes: TypeAlias = Mapping[ClientId, float] | Sequence[float] | Tensor
"""Numbers of examples or shares of the average: by client, or in the order of the clients."""

SHARES_ROUNDING = 1e-4
"""How far shares may add up to something else than 1: that of shares written with a few digits."""


def shares_of(clients: Iterable[ClientId], sizes: Sizes | None, name: str = "p") -> dict[ClientId, float]:
    """Return each client's share p_k of the average, positive or 0, with sum 1.

    Args:
        clients: The clients' ids.
        sizes: Shares that add up to 1; or numbers of examples n_k, whole, of which the shares are n_k / sum(n); None
            for equal shares.
        name: What the caller calls ``sizes``, for the messages.

    Raises:
        TypeError: What should be a number is none, such as a text.
        ValueError: A client has no number, a number has no client, one is negative or not finite, or their sum is that
            of neither.
    """
    ids = list(clients)
    if sizes is None:
        return {k: 1 / len(ids) for k in ids}
    if not isinstance(sizes, Mapping):
        if isinstance(sizes, str) or not isinstance(sizes, Iterable):
            raise TypeError(f"{name} must be numbers, one for each client, got {sizes!r}")
        values = sizes.tolist() if isinstance(sizes, Tensor) else list(sizes)
        if len(values) != len(ids):
            raise ValueError(f"{name} has {len(values)} numbers for {len(ids)} clients; give one for each client")
        sizes = dict(zip(ids, values, strict=True))
    lacking = [k for k in ids if k not in sizes]
    if lacking:
        raise ValueError(f"{name} has no number for clients {', '.join(map(repr, lacking))}; it has {_named(sizes)}")
    unknown = [k for k in sizes if k not in set(ids)]
    if unknown:
        raise ValueError(
            f"{name} has numbers for clients that are not there, {', '.join(map(repr, unknown))}: without "
            "them the others are not the whole average; give their weights too, or leave their numbers out"
        )
    numbers = {k: _number(sizes[k], f"{name} of {k!r}") for k in ids}
    wrong = {k: n for k, n in numbers.items() if not (math.isfinite(n) and n >= 0)}
    if wrong:
        raise ValueError(f"{name} must be positive numbers, got {', '.join(f'{n} of {k!r}' for k, n in wrong.items())}")
    total = math.fsum(numbers.values())
    if abs(total - 1) <= SHARES_ROUNDING:
        return {k: n / total for k, n in numbers.items()}
    if total > 1 and all(n == int(n) for n in numbers.values()):
        return {k: n / total for k, n in numbers.items()}
    raise ValueError(f"{name} adds up to {total:g}: neither shares, which add up to 1, nor whole numbers of examples")


def _number(given: Any, what: str) -> float:
    if isinstance(given, str | bytes) or not hasattr(given, "__float__"):
        raise TypeError(f"{what} must be a number, got {given!r}")
    return float(given)


def _named(sizes: Mapping[ClientId, float]) -> str:
    return f"numbers for {', '.join(map(repr, sizes))}" if sizes else "none"


def weighted(shares: Mapping[ClientId, float], weighting: Weighting) -> dict[ClientId, float] | None:
    """Return each client's factor of its contribution, or None where contributions are not weighted.

    Leaving a client out moves the average by p / (1 - p) times its distance from it.

    Raises:
        ValueError: There is no such weighting.
    """
    if weighting not in WEIGHTINGS:
        raise ValueError(f"weighting must be one of {', '.join(WEIGHTINGS)}, got {weighting!r}")
    if weighting == "none":
        return None
    if weighting == "num_examples":
        return dict(shares)
    # A client that is the whole average cannot be left out of it; it is responsible whatever its weight.
    return {k: p / (1 - p) if p < 1 else 1.0 for k, p in shares.items()}
