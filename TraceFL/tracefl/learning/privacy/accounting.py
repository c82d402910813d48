"""Epsilon of DP-SGD: what each client has spent in all rounds that it took part in.

A client's round is ``steps`` steps of the sampled Gaussian mechanism. Each step draws every example with probability
``sample_rate`` (Poisson sampling). Opacus accounts for them in Renyi differential privacy (Mironov et al. 2019).
Neighbours are data sets of a client that differ in one example. Clients share no examples, so each has its own epsilon.
"""

import math
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from tracefl.errors import ConfigError
from tracefl.learning.privacy.settings import DpSgdSettings
from tracefl.learning.settings import TrainingSettings

# With much noise, the best order is the largest one that Opacus tries: epsilon is still a bound, only less tight.
warnings.filterwarnings("ignore", message="Optimal order is the largest alpha")


@dataclass(frozen=True)
class DpSgd:
    """One client's parameters of DP-SGD, the same in every round.

    Attributes:
        sample_rate: Probability of each example to be in a batch, in (0, 1].
        steps: Number of steps per round.
        noise_multiplier: Standard deviation of the noise on a batch's sum of clipped gradients, as a multiple of
            ``max_grad_norm``.
        max_grad_norm: L2 norm that each example's gradient is clipped to.
        max_physical_batch_size: Most examples in one forward and backward pass.
    """

    sample_rate: float
    steps: int
    noise_multiplier: float
    max_grad_norm: float
    max_physical_batch_size: int


def client_dp_sgd(privacy: DpSgdSettings, training: TrainingSettings, num_examples: int, num_rounds: int) -> DpSgd:
    """Return a client's DP-SGD, with on average ``training.batch_size`` examples per batch or slightly fewer.

    Args:
        privacy: The run's settings.
        training: Epochs and batch size.
        num_examples: Number of the client's examples, at least 1.
        num_rounds: Number of rounds of the run. With ``target_epsilon``, the noise is chosen such that a client that
            takes part in all of them stays within it.
    """
    batches = math.ceil(num_examples / training.batch_size)
    sample_rate, steps = 1 / batches, batches * training.epochs
    noise_multiplier = privacy.noise_multiplier
    if noise_multiplier is None:
        assert privacy.target_epsilon is not None  # exactly one of the two is given
        noise_multiplier = _noise_for(privacy.target_epsilon, privacy.target_delta, sample_rate, steps * num_rounds)
    return DpSgd(sample_rate, steps, noise_multiplier, privacy.max_grad_norm, privacy.max_physical_batch_size)


def epsilon(history: tuple[tuple[float, float, int], ...], delta: float) -> float:
    """Return the epsilon that the given steps spend at ``delta``; 0 for no steps.

    Args:
        history: Noise multiplier, sample rate and number of steps, one entry per kind of step.
        delta: In (0, 1).
    """
    from opacus.accountants import RDPAccountant

    accountant = RDPAccountant()
    accountant.history = list(history)
    return float(accountant.get_epsilon(delta))


class PrivacyAccountant:
    """Counts what each client has spent.

    Args:
        clients: Client id to its DP-SGD. Between rounds, clients may be added to ``accountant.clients`` or their DP-SGD
            replaced.
        target_delta: Delta of every epsilon.
    """

    def __init__(self, clients: Mapping[str, DpSgd], target_delta: float) -> None:
        self.clients = dict(clients)
        self._delta = target_delta
        self._steps: dict[str, Counter[tuple[float, float]]] = {}  # client id to number of steps by kind

    def add_round(self, sampled: Iterable[str]) -> dict[str, float]:
        """Count a round for every sampled client.

        This includes dropped clients, since they may have trained and sent their weights.

        Returns:
            Client id to the epsilon that the client has spent so far, for the round's clients.
        """
        sampled = tuple(sampled)
        for client_id in sampled:
            dp = self.clients[client_id]
            self._steps.setdefault(client_id, Counter())[dp.noise_multiplier, dp.sample_rate] += dp.steps
        return {client_id: self.spent(client_id) for client_id in sampled}

    def spent(self, client_id: str) -> float:
        """Return the epsilon that a client has spent so far."""
        history = ((noise, rate, steps) for (noise, rate), steps in self._steps.get(client_id, {}).items())
        return _epsilon(tuple(history), self._delta)


_epsilon = lru_cache(maxsize=100_000)(epsilon)


@lru_cache(maxsize=10_000)
def _noise_for(target_epsilon: float, target_delta: float, sample_rate: float, steps: int) -> float:
    from opacus.accountants.utils import get_noise_multiplier

    try:
        return float(
            get_noise_multiplier(
                target_epsilon=target_epsilon, target_delta=target_delta, sample_rate=sample_rate, steps=steps
            )
        )
    except ValueError as error:
        raise ConfigError(
            f"privacy.target_epsilon={target_epsilon} is too low for {steps} steps at sample rate {sample_rate:.4g}: "
            "no noise is enough; raise it, or lower num_rounds or client.epochs"
        ) from error
