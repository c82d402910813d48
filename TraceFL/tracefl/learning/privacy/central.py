"""Central differential privacy: what Flower's strategies leave open. Clipping and noise themselves are Flower's."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np


@contextmanager
def seeded_numpy(seed: int) -> Iterator[None]:
    """Seed numpy's global generator, from which Flower draws its noise, and leave it afterwards as it was."""
    state = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(state)


def next_clipping_norm(clipping_norm: float, clipped_fraction: float, target: float, learning_rate: float) -> float:
    """Return the norm of the next round: larger where more clients were clipped than are to be.

    Args:
        clipping_norm: The norm that this round's updates were clipped to, above 0.
        clipped_fraction: Clients that were clipped, a fraction with noise on it.
        target: Fraction that is to be clipped, 0 to 1.
        learning_rate: Above 0.

    Returns:
        C * exp(lr * (clipped - target)), which is Andrew et al. (2021), Section 2, written for the clipped clients
        instead of the unclipped ones.
    """
    return clipping_norm * math.exp(learning_rate * (clipped_fraction - target))


def effective_noise_multiplier(noise_multiplier: float, largest_weight: float, num_clients: int) -> float:
    """Return the noise as a multiple of what one client can change in the average.

    Flower's noise, noise_multiplier * C / K, takes each of the K clients for a K-th of the average. FedAvg weights them
    by examples, so that one of weight p_k moves the average by up to p_k * C.
    """
    return noise_multiplier / (num_clients * largest_weight)
