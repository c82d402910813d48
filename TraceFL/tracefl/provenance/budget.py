r"""How many of a round's clients are left out exactly, where nobody says: what a removal costs beside an estimate.

Counted in forward passes of all B inputs, with K clients, m of them proven, a for an attribution (one forward and
backward pass, the clients' products, its own check) and r for reading one client's weights:

    all removals            K + 1     + 2 K r
    estimate and m proofs   m + 1 + a + (K + m) r

All removals read every client for their average and again to leave it out; an attribution reads every client once, and
a few removals only those that are left out. So all removals cost no more up to K = (a + m + m r) / (1 + r) clients.
benchmarks/fidelity_many.py measures a = 8 and r = 0.8 for a small ResNet and 50 inputs, a = 16 and r = 0.5 for
DenseNet-121: up to 8 and 15 clients. Timed as wholes, an estimate with its proofs takes 1.1 to 1.4 of all removals with
10 clients, and as much with 12 on the ResNet. The rule counts clients and never measures time, because the same round
must get the same answer everywhere.

m is the square root of K: a client's step p/(1-p), and with it the error of its estimate, shrinks as 1/K, so that a
round of a hundred needs a smaller part of them proven than one of thirty.
"""

import math
from typing import NamedTuple

from tracefl.provenance.options import Method, Verify

_AFFORDABLE = 10
"""Clients of whom all removals cost no more than an estimate and its proofs, by what was timed."""

_EACH = 2
"""Clients of each input that are left out of it beside the shared ones, if they are not among these."""


class Proofs(NamedTuple):
    """Which of a round's clients are left out exactly.

    Attributes:
        each: How many of each input's first clients; ``"all"`` for all, 0 for none. With ``shared``, the first ones by
            what the shared removals have shown.
        shared: How many clients, those with the largest mean estimates, for all inputs, before each input's first ones
            and those that might be first.
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
    return Proofs("all") if removing_all_is_no_dearer(num_clients) else Proofs(_EACH, num_proven(num_clients))


def num_proven(num_clients: int) -> int:
    """Return m: how many of a round's clients are left out for all inputs, beside an estimate."""
    return math.ceil(math.sqrt(num_clients))


def removing_all_is_no_dearer(num_clients: int) -> bool:
    """Return whether leaving every client out costs no more than an estimate and its proofs."""
    return num_clients <= _AFFORDABLE
