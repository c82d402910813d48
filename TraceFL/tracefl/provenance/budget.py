r"""How many of a round's clients are left out exactly, where nobody says: what a removal costs beside an estimate.

Counted in forward passes of all B inputs, with K clients, m of them proven, a for an attribution (one forward and
backward pass, the clients' products, its own check) and r for reading one client's weights:

    all removals            K + 1     + 2 K r
    estimate and m proofs   m + 1 + a + (2 K + m) r

An attribution reads every client once, and so does the average that the removals start from; a removed client is read
again. So all removals cost no more than the estimate up to K = a + m + m r clients. r is that of some inputs, divided
by B: it can be left out. a is measured by benchmarks/fidelity_many.py, see docs/evidence/fidelity.md; the rule counts
clients and never measures time, because the same round must get the same answer everywhere.
"""

import math
from typing import NamedTuple

from tracefl.provenance.options import Method, Verify

_ATTRIBUTION = 8
"""a: forward passes that one attribution is worth."""


class Proofs(NamedTuple):
    """Which of a round's clients are left out exactly.

    Attributes:
        each: How many of each input's first clients; ``"all"`` for all, 0 for none.
        shared: How many clients, those with the largest mean estimates, for all inputs, before each input's first ones.
    """

    each: Verify
    shared: int = 0

    def __str__(self) -> str:
        first = "all clients" if self.each == "all" else f"each input's first {self.each}"
        return f"{self.shared} clients for all inputs, then {first}" if self.shared else first


def proofs_of(method: Method, num_clients: int) -> Proofs:
    """Return whom a method leaves out of a round: as many as it says, or what is best where it leaves that open."""
    if method.verify is not None:
        return Proofs(method.verify)
    if not method.estimates_removal:
        return Proofs(0)
    return Proofs("all") if removing_all_is_no_dearer(num_clients) else Proofs(1, num_proven(num_clients))


def num_proven(num_clients: int) -> int:
    """Return m: how many of a round's clients are left out for all inputs, beside an estimate."""
    return max(2, math.ceil(num_clients / 5))


def removing_all_is_no_dearer(num_clients: int) -> bool:
    """Return whether leaving every client out costs no more than an estimate and its proofs."""
    return num_clients <= _ATTRIBUTION + num_proven(num_clients)
