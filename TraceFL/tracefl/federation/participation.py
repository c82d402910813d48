"""Who takes part in the rounds to come, and how much each weighs: ``without``, and what ``mitigate`` decides."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from tracefl.common.seeds import derive_seed
from tracefl.errors import ConfigError
from tracefl.records.settings import Settings

Draw = Callable[[Sequence[str], int, int], Sequence[str]]
"""Client ids, how many of them and a seed, to those that are drawn."""


@dataclass
class Participation:
    """Who takes no part in a run, or less; whoever runs the rounds may change it between two of them.

    Attributes:
        excluded: Ids of the clients that are not sampled.
        factors: Client id to the factor in (0, 1) of its weight in the average; clients without one weigh what they
            hold.
    """

    excluded: set[str] = field(default_factory=set)
    factors: dict[str, float] = field(default_factory=dict)

    def sample(self, draw: Draw, client_ids: Sequence[str], count: int, seed: int) -> list[str]:
        """Draw a round's clients.

        Those are drawn that are drawn without any exclusion, as far as they may take part, and others in place of those
        that may not. So runs with and without a client differ by as little as they can, and those left are as likely as
        if the excluded ones were not there.

        Args:
            draw: Draws clients.
            client_ids: Those that are there, in an order that is the same in every run.
            count: How many; all that are left where fewer are.
            seed: Of this round.
        """
        drawn = [k for k in draw(client_ids, min(count, len(client_ids)), seed) if k not in self.excluded]
        others = [k for k in client_ids if k not in self.excluded and k not in drawn]
        missing = min(count - len(drawn), len(others))
        return [*drawn, *draw(others, missing, derive_seed(seed, "in place"))] if missing else drawn


def least_clients(clients_per_round: int, min_clients: int) -> int:
    """Return how many clients must be left: half a round's, and as many as must answer."""
    return max(min_clients, -(-clients_per_round // 2))


def check_without(settings: Settings) -> None:
    """Refuse to leave out clients that do not exist, or so many that too few are left for a round.

    Raises:
        ConfigError: ``without`` names such a client, or too many.
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
    """Refuse to leave out so many of the clients that could take part that too few are left for a round.

    Raises:
        ConfigError: ``without`` names too many.
    """
    without, a_round, min_clients = list(settings.without), settings.clients_per_round, settings.strategy.min_clients
    left, least = len(set(clients) - set(without)), least_clients(a_round, min_clients)
    if without and left < least:
        raise ConfigError(
            f"without={without} leaves {left} of the {len(clients)} clients that can take part, and {least} are needed "
            f"(half of clients_per_round={a_round}, strategy.min_clients={min_clients}); name fewer"
        )
