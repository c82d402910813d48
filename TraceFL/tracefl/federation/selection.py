"""Sampling of clients by their usefulness in earlier rounds: ``strategy=provenance_selection``.

Let N be the number of clients and u_k the usefulness of client k (``ContributionLedger.usefulness``), and call a client
that has a u_k seen. Then

    z_k = (u_k - mean) / standard deviation, over the clients seen; 0 for the others
    q_k = (1 - exploration) * exp(z_k / temperature) / sum_j exp(z_j / temperature) + exploration / N

is the probability that client k is drawn first. The round's other clients are drawn one by one without replacement, in
proportion to q among the remaining ones. A client never seen is drawn like an average one, and no probability is below
exploration / N. Before anything is traced, all clients are equally likely, as in ``fedavg``.
"""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev

from tracefl.errors import ConfigError
from tracefl.questions.ledger import WRONG_WEIGHT, ContributionLedger
from tracefl.records.settings import Settings
from tracefl.records.strategies import SelectionSettings, Strategy


@dataclass(frozen=True)
class Selection:
    """How clients are drawn.

    Attributes:
        ledger: Contributions in the rounds so far; the run adds each round to it.
        temperature: Above 0, in standard deviations of the usefulness; the lower, the closer the draw follows it.
        exploration: Share of the probability that is spread evenly, in (0, 1].
        wrong_weight: At least 0; see ``ContributionLedger.usefulness``.
    """

    ledger: ContributionLedger
    temperature: float
    exploration: float
    wrong_weight: float = WRONG_WEIGHT

    def draw(self, client_ids: Sequence[str], count: int, seed: int) -> tuple[str, ...]:
        """Draw a round's clients.

        Args:
            client_ids: Clients that can take part, in the same order in every run.
            count: Number to draw, at most ``len(client_ids)``.
            seed: Seed of this round.
        """
        usefulness = {client_id: self.ledger.usefulness(client_id, self.wrong_weight) for client_id in client_ids}
        return draw_clients(selection_probabilities(usefulness, self.temperature, self.exploration), count, seed)


def selection_probabilities(
    usefulness: Mapping[str, float | None], temperature: float, exploration: float
) -> dict[str, float]:
    """Return each client's probability q_k of being drawn first; they sum to 1.

    Args:
        usefulness: Client id to u_k, None for a client never seen. A client whose u_k is not finite, because a model
            diverged, counts as never seen.
        temperature: Above 0.
        exploration: In (0, 1].
    """
    seen = [u for u in usefulness.values() if u is not None and math.isfinite(u)]
    mean, spread = (fmean(seen), pstdev(seen)) if seen else (0.0, 0.0)
    z = {
        client_id: 0.0 if u is None or not math.isfinite(u) or not spread else (u - mean) / spread
        for client_id, u in usefulness.items()
    }
    highest = max(z.values(), default=0.0)
    weights = {client_id: math.exp((value - highest) / temperature) for client_id, value in z.items()}
    total = sum(weights.values())
    return {
        client_id: (1 - exploration) * weight / total + exploration / len(weights)
        for client_id, weight in weights.items()
    }


def draw_clients(probabilities: Mapping[str, float], count: int, seed: int) -> tuple[str, ...]:
    """Draw clients one by one without replacement, in proportion to the probabilities of the remaining ones.

    Each client is given a waiting time from the exponential distribution with its probability as rate, and the shortest
    times win (Efraimidis and Spirakis 2006).

    Args:
        probabilities: Client id to a number above 0.
        count: Number to draw, at most ``len(probabilities)``.
        seed: Determines the draw.

    Returns:
        The clients, in the order in which they are drawn.
    """
    draw = random.Random(seed)
    waits = {client_id: draw.expovariate(1.0) / probability for client_id, probability in probabilities.items()}
    return tuple(sorted(waits, key=lambda client_id: waits[client_id])[:count])


def read_selection(strategy: Strategy) -> Selection | None:
    """Return the selection that a strategy uses, with an empty ledger; None if clients are drawn uniformly."""
    if not isinstance(strategy, SelectionSettings):
        return None
    numbers = (strategy.temperature, strategy.exploration, strategy.wrong_weight)
    return Selection(ContributionLedger(), *map(float, numbers))


def check_selection(settings: Settings) -> None:
    """Check that the contributions used to select clients are traced and comparable.

    Raises:
        ConfigError: The groups ``strategy`` and ``provenance`` do not fit together.
    """
    if not isinstance(settings.strategy, SelectionSettings):
        return
    provenance, name = settings.provenance, settings.strategy.name
    if provenance is None:
        raise ConfigError(
            f"strategy={name} draws clients by their traced contributions, and provenance=off traces none; "
            "give provenance=removal, or strategy=fedavg"
        )
    if provenance.inputs != "all":
        raise ConfigError(
            f"strategy={name} weighs correct against wrong predictions, got provenance.inputs={provenance.inputs}; "
            "give provenance.inputs=all"
        )
    if provenance.target == "label":
        raise ConfigError(
            f"strategy={name} needs contributions to what is predicted, got provenance.target=label; "
            "give provenance.target=centered"
        )
    if provenance.reference == "none":
        raise ConfigError(
            f"strategy={name} compares contributions of different rounds, and with provenance.reference=none most of "
            "each is the same for all clients of a round; give provenance.reference=global"
        )
