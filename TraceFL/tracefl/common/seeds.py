"""One root seed, and every other seed derived from it by name.

Two parts of a run never share a random stream by accident, and adding a new part moves none of the others.
"""

import hashlib


def derive_seed(root: int, *path: str | int) -> int:
    """Derive the seed of one part of a run from the root seed.

    Args:
        root: The run's only root seed.
        path: What the seed is for, e.g. ``("train", server_round, client_id)``.

    Returns:
        A whole number in [0, 2**31), accepted by torch, numpy, scikit-learn and ``random``.
    """
    digest = hashlib.sha256("/".join(map(str, (root, *path))).encode()).digest()
    return int.from_bytes(digest[:8], "big") % 2**31
