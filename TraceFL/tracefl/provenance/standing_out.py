r"""Who stands out, round after round, where nobody said what to look for.

A round says how far each client stands out of the round's as one that was taught that things are of class c
(``Confusions.class_suspicion``). In any one round somebody is first, and of honest clients who hold different data the
same one may be first for a while. So it is added up, for each client and class, over the rounds that the client takes
part in, less what honest clients seldom exceed (Page, "Continuous inspection schemes", Biometrika 1954):

    sum_k[c] = max(0, sum_k[c] of its last round + suspicion_k[c] - 1).

That stays near 0 for an honest client however long a run is, and grows for one that is faulty, from the round on in
which it is. How high it comes in runs in which everybody is honest was measured; its highest over a run's clients,
classes and rounds has the distribution of a maximum (Gumbel, "Statistics of Extremes", 1958),

    P(somebody reaches s) = 1 - exp(-exp(-(s - mode) / scale)),

so that the bar follows from the share of honest runs in which it may name somebody.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tracefl.provenance.confusion import Confusions
    from tracefl.provenance.record import ClientId

_DRIFT = 1.0  # standard deviations
_MODE, _SCALE = 0.002, 0.389
"""Of the highest sums in 120 honest runs: ``benchmarks/confusion.py DATA OUT --seeds 101 102 1 2 --faults none``, with
``--drawn 10 4 --alphas 0.1 0.3 0.7 1.0``."""

FEWEST_CLIENTS = 4
"""Clients of a round that counts: among fewer, none can stand out far."""

LEAST_SKILL = 0.2
"""Of the model in a round that counts: where it knows nothing, nobody's effect on it means anything."""


@dataclass(frozen=True)
class StandOut:
    """A client, and the class for which it stands out most.

    Attributes:
        client_id: The client.
        toward: The class that it seems to have been taught other classes are.
        total: The sum, in standard deviations.
        since: The first of the rounds that are added up in it.
        honest_share: Share of runs without a faulty client in which somebody reaches that sum, 0 to 1.
    """

    client_id: "ClientId"
    toward: int
    total: float
    since: int
    honest_share: float


def class_suspicions(found: "Confusions") -> "dict[ClientId, tuple[float, ...]]":
    """Return each client's suspicion for each class in a round; of none where the round does not count.

    A round counts with at least ``FEWEST_CLIENTS`` clients and a model of ``LEAST_SKILL``, where that is known. A
    client that cannot be left out is not among them: nothing is known of it.
    """
    if len(found.client_ids) < FEWEST_CLIENTS or found.skill < LEAST_SKILL:
        return {}
    rows = zip(found.client_ids, found.class_suspicion.tolist(), strict=True)
    return {client: tuple(row) for client, row in rows if client not in found.prevented}


class StandOuts:
    """Adds up how far clients stand out, over rounds in their order.

    Args:
        false_alarms: Share of runs in which everybody is honest that may name somebody all the same, above 0, below 1.

    Raises:
        ValueError: ``false_alarms`` is out of range.
    """

    def __init__(self, false_alarms: float = 0.01) -> None:
        if not 0 < false_alarms < 1:
            raise ValueError(f"false_alarms must be in (0, 1), got {false_alarms}")
        self.bar = _MODE - _SCALE * math.log(-math.log1p(-false_alarms))
        self._sums: dict[ClientId, list[float]] = {}
        self._since: dict[ClientId, list[int]] = {}

    def add(self, server_round: int, suspicions: "Mapping[ClientId, Sequence[float]]") -> tuple[StandOut, ...]:
        """Add a round.

        Args:
            server_round: The round.
            suspicions: Of its clients for each class, as ``class_suspicions`` returns them.

        Returns:
            Where each of these clients now stands, in their order.
        """
        for client, values in suspicions.items():
            before = self._sums.get(client, [0.0] * len(values))
            since = self._since.get(client, [server_round] * len(values))
            self._since[client] = [s if total > 0 else server_round for s, total in zip(since, before, strict=True)]
            self._sums[client] = [max(0.0, b + v - _DRIFT) for b, v in zip(before, values, strict=True)]
        return self._of(suspicions)

    @property
    def standing(self) -> tuple[StandOut, ...]:
        """All clients of rounds that counted, the one that stands out most first."""
        return tuple(sorted(self._of(self._sums), key=lambda each: -each.total))

    @property
    def named(self) -> tuple[StandOut, ...]:
        """Those above the bar, the one that stands out most first."""
        return tuple(each for each in self.standing if self.is_named(each))

    def is_named(self, each: StandOut) -> bool:
        """Return whether a client reaches the bar; none does that does not stand out at all."""
        return each.total >= self.bar and each.total > 0

    @property
    def sums(self) -> "dict[ClientId, tuple[float, ...]]":
        """Each client's sum for each class."""
        return {client: tuple(sums) for client, sums in self._sums.items()}

    def _of(self, clients: "Iterable[ClientId]") -> tuple[StandOut, ...]:
        return tuple(self._most(client) for client in clients)

    def _most(self, client: "ClientId") -> StandOut:
        sums = self._sums[client]
        c = max(range(len(sums)), key=sums.__getitem__)
        return StandOut(client, c, sums[c], self._since[client][c], _share_of_honest_runs(sums[c]))


def _share_of_honest_runs(total: float) -> float:
    """Return in which share of honest runs somebody reaches a sum."""
    return -math.expm1(-math.exp(-(total - _MODE) / _SCALE))
