"""Central differential privacy: what Flower's strategies, which do the clipping and add the noise, leave out."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np


@contextmanager
def seeded_numpy(seed: int) -> Iterator[None]:
    """Seed numpy's global generator, from which Flower draws its noise, and restore it afterwards."""
    state = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(state)


def next_clipping_norm(clipping_norm: float, clipped_fraction: float, target: float, learning_rate: float) -> float:
    """Return the next round's clipping norm: larger if more clients were clipped than intended.

    Args:
        clipping_norm: The norm that this round's updates were clipped to, above 0.
        clipped_fraction: Noisy fraction of the clients that were clipped.
        target: Intended fraction of clipped clients, 0 to 1.
        learning_rate: Above 0.

    Returns:
        C * exp(lr * (clipped - target)), as in Andrew et al. (2021), Section 2, but written in terms of the clipped
        clients instead of the unclipped ones.
    """
    return clipping_norm * math.exp(learning_rate * (clipped_fraction - target))


def effective_noise_multiplier(noise_multiplier: float, largest_weight: float, num_clients: int) -> float:
    """Return the noise as a multiple of the most that one client can change the average.

    Flower's noise, noise_multiplier * C / K, assumes that each of the K clients has weight 1 / K. FedAvg weights them
    by number of examples, so a client of weight p_k can move the average by up to p_k * C.
    """
    return noise_multiplier / (num_clients * largest_weight)
