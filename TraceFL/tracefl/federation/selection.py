"""Clients of a round drawn by their usefulness in the rounds before: ``strategy=provenance_selection``.

With u_k the usefulness of client k (contributions.py), N clients and those with a u_k called seen,

    z_k = (u_k - mean) / standard deviation, over the clients seen; 0 for the others
    q_k = (1 - exploration) * exp(z_k / temperature) / sum_j exp(z_j / temperature) + exploration / N

is the probability of client k to be drawn first. The others of the round are drawn one after another without
replacement, each in proportion to q among those that are left. A client never seen is drawn like an average one, and
none with a probability below exploration / N. Before anything is traced all are equally likely, as in ``fedavg``.
"""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev

from tracefl.errors import ConfigError
from tracefl.questions.ledger import WRONG_WEIGHT, ContributionLedger
from tracefl.records.settings import SelectionSettings, Settings, Strategy


@dataclass(frozen=True)
class Selection:
    """How clients are drawn.

    Attributes:
        ledger: The account of the rounds so far; whoever runs the rounds adds to it.
        temperature: Above 0, in standard deviations of the usefulness: low follows it closely.
        exploration: Share in (0, 1] of the probability that is spread evenly.
        wrong_weight: At least 0, see ``ContributionLedger.usefulness``.
    """

    ledger: ContributionLedger
    temperature: float
    exploration: float
    wrong_weight: float = WRONG_WEIGHT

    def draw(self, client_ids: Sequence[str], count: int, seed: int) -> tuple[str, ...]:
        """Draw a round's clients.

        Args:
            client_ids: Those that can take part, in an order that is the same in every run.
            count: How many, at most as many as there are.
            seed: Of this round.
        """
        usefulness = {client_id: self.ledger.usefulness(client_id, self.wrong_weight) for client_id in client_ids}
        return draw_clients(selection_probabilities(usefulness, self.temperature, self.exploration), count, seed)


def selection_probabilities(
    usefulness: Mapping[str, float | None], temperature: float, exploration: float
) -> dict[str, float]:
    """Return each client's probability q_k to be drawn first; they sum to 1.

    Args:
        usefulness: Client id to u_k, None for a client never seen. What is not finite, as from a model that has
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
    """Draw different clients one after another, each in proportion to its probability among those that are left.

    Args:
        probabilities: Client id to a number above 0.
        count: How many, at most as many as there are.
        seed: The same gives the same clients.

    Returns:
        In the order in which they are drawn. Each client waits for a time that is exponential with its probability as
        rate, and the first are taken (Efraimidis and Spirakis 2006).
    """
    draw = random.Random(seed)
    waits = {client_id: draw.expovariate(1.0) / probability for client_id, probability in probabilities.items()}
    return tuple(sorted(waits, key=lambda client_id: waits[client_id])[:count])


def read_selection(strategy: Strategy) -> Selection | None:
    """Return what draws the clients, with an empty ledger; None for a strategy that draws them at random."""
    if not isinstance(strategy, SelectionSettings):
        return None
    numbers = (strategy.temperature, strategy.exploration, strategy.wrong_weight)
    return Selection(ContributionLedger(), *map(float, numbers))


def check_selection(settings: Settings) -> None:
    """Refuse a selection by contributions that are not traced, or that say nothing of a client's use.

    Raises:
        ConfigError: The groups ``strategy`` and ``provenance`` do not go together.
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
