"""Who takes part in the rounds to come, and how much each weighs: ``without``, and what ``mitigate`` decides."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tracefl.common.seeds import derive_seed
from tracefl.errors import ConfigError

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


def check_without(config: Mapping[str, Any]) -> None:
    """Refuse to leave out clients that do not exist, or so many that too few are left for a round.

    Args:
        config: The resolved configuration, its values legal by themselves.

    Raises:
        ConfigError: It is so.
    """
    num_clients = config["num_clients"]
    unknown = sorted(client for client in config["without"] if client >= num_clients)
    if unknown:
        raise ConfigError(
            f"without={config['without']} names client {unknown[0]}, and num_clients={num_clients} are 0 to "
            f"{num_clients - 1}; name one of those"
        )
    check_left(config, range(num_clients))


def check_left(config: Mapping[str, Any], clients: Collection[int]) -> None:
    """Refuse to leave out so many of the clients that could take part that too few are left for a round.

    Raises:
        ConfigError: It is so.
    """
    without, a_round, min_clients = config["without"], config["clients_per_round"], config["strategy"]["min_clients"]
    left, least = len(set(clients) - set(without)), least_clients(a_round, min_clients)
    if without and left < least:
        raise ConfigError(
            f"without={without} leaves {left} of the {len(clients)} clients that can take part, and {least} are needed "
            f"(half of clients_per_round={a_round}, strategy.min_clients={min_clients}); name fewer"
        )


def check_without_from(config: Mapping[str, Any]) -> None:
    """Refuse a first round without clients that does not exist, or that leaves out nobody.

    Raises:
        ConfigError: It is so.
    """
    first, num_rounds = config["without_from"], config["num_rounds"]
    if first > 1 and not config["without"]:
        raise ConfigError(f"without_from={first}, and without=[] leaves nobody out; leave without_from=1")
    if first > num_rounds:
        raise ConfigError(f"without_from={first} is above num_rounds={num_rounds}; lower it")
