"""Which clients may be sampled and how much each weighs: ``without``, refusals, and the decisions of ``mitigate``."""

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from tracefl.common.seeds import derive_seed
from tracefl.errors import ConfigError
from tracefl.records.settings import Settings

Draw = Callable[[Sequence[str], int, int], Sequence[str]]
"""Draws clients, given their ids, the number to draw and a seed."""


@dataclass
class Participation:
    """Which clients are excluded and which weigh less; may change between two rounds.

    Attributes:
        excluded: Ids of clients that are never sampled.
        factors: Client id to the factor in (0, 1) by which its weight in the average is multiplied; no entry means 1.
        max_refusals: After so many refused replies a client is excluded; None: however many.
        refusals: Client id to how many of its replies were refused so far.
    """

    excluded: set[str] = field(default_factory=set)
    factors: dict[str, float] = field(default_factory=dict)
    max_refusals: int | None = None
    refusals: Counter[str] = field(default_factory=Counter)

    def refuse(self, client_id: str) -> bool:
        """Count a refused reply; return whether the client is now no longer asked."""
        self.refusals[client_id] += 1
        if self.max_refusals is None or self.refusals[client_id] < self.max_refusals:
            return False
        self.excluded.add(client_id)
        return True

    def sample(self, draw: Draw, client_ids: Sequence[str], count: int, seed: int) -> list[str]:
        """Draw a round's clients.

        Clients are first drawn as if none were excluded, then the excluded ones are replaced. Runs with and without a
        client thus differ as little as possible, and each remaining client is as likely to be drawn as if the excluded
        ones did not exist.

        Args:
            draw: Draws clients.
            client_ids: Connected clients, in the same order in every run.
            count: Number to draw; if fewer remain, all of them are returned.
            seed: Seed of this round.
        """
        drawn = [k for k in draw(client_ids, min(count, len(client_ids)), seed) if k not in self.excluded]
        others = [k for k in client_ids if k not in self.excluded and k not in drawn]
        missing = min(count - len(drawn), len(others))
        return [*drawn, *draw(others, missing, derive_seed(seed, "in place"))] if missing else drawn


def least_clients(clients_per_round: int, min_clients: int) -> int:
    """Return how many clients must remain: half a round's, and at least the replies that a round needs."""
    return max(min_clients, -(-clients_per_round // 2))


def check_without(settings: Settings) -> None:
    """Check that the clients of ``without`` exist, leave enough others, and are left out in some round.

    Raises:
        ConfigError: A client or ``without_from`` does not exist, or too few clients would remain for a round.
    """
    num_clients, without = settings.num_clients, list(settings.without)
    unknown = sorted(client for client in without if client >= num_clients)
    if unknown:
        raise ConfigError(
            f"without={without} names client {unknown[0]}, and num_clients={num_clients} are 0 to {num_clients - 1}; "
            "name one of those"
        )
    check_left(settings, range(num_clients))
    if settings.without_from > 1 and not without:
        raise ConfigError(f"without_from={settings.without_from}, and without=[] leaves nobody out; leave it 1")
    if settings.without_from > settings.num_rounds:
        raise ConfigError(f"without_from={settings.without_from} is above num_rounds={settings.num_rounds}; lower it")


def check_left(settings: Settings, clients: Collection[int]) -> None:
    """Check that ``without`` leaves enough of the clients that can take part.

    Raises:
        ConfigError: Too few would remain for a round.
    """
    without, a_round, min_clients = list(settings.without), settings.clients_per_round, settings.strategy.min_clients
    left, least = len(set(clients) - set(without)), least_clients(a_round, min_clients)
    if without and left < least:
        raise ConfigError(
            f"without={without} leaves {left} of the {len(clients)} clients that can take part, and {least} are needed "
            f"(half of clients_per_round={a_round}, strategy.min_clients={min_clients}); name fewer"
        )
