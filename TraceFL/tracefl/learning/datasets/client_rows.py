"""Which of its rows each client trains on, selected by label alone as in the paper.

For each client, in this order: labels with too few examples are dropped, the rest is capped by a seeded sample, and a
client left with less than one batch does not take part. Client ids are partition ids and are never renumbered (Gill et
al. 2025, experimental setup).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tracefl.common.seeds import derive_seed
from tracefl.learning.datasets.settings import DatasetSettings
from tracefl.learning.datasets.sources import Rows

_NAMED = 20  # most clients named in a note


@dataclass(frozen=True)
class ClientRows:
    """The rows that each client trains on.

    Attributes:
        rows: Client id to its rows, ascending; only clients that take part, in numeric order of their ids.
        notes: What was dropped, one line each.
    """

    rows: dict[str, Rows]
    notes: tuple[str, ...]


def select_rows(
    labels: Rows, parts: Sequence[Rows], settings: DatasetSettings, batch_size: int, seed: int
) -> ClientRows:
    """Select each client's training rows.

    Args:
        labels: ``(N,)`` class of each row of the training split.
        parts: Each client's rows, indexed by client id.
        settings: Only ``min_examples_per_label`` and ``max_examples_per_client`` are used.
        batch_size: Examples in one batch.
        seed: The run's root seed; determines which examples a capped client keeps.
    """
    rows: dict[str, Rows] = {}
    without_batch = []
    pairs_dropped = examples_dropped = clients_capped = examples_capped = 0
    for number, part in enumerate(parts):
        counts = np.bincount(labels[part])
        rare = (counts > 0) & (counts < settings.min_examples_per_label)
        common = part[~rare[labels[part]]]
        kept = sample_rows(common, settings.max_examples_per_client, derive_seed(seed, "client_examples", number))
        pairs_dropped += int(rare.sum())
        examples_dropped += len(part) - len(common)
        clients_capped += len(kept) < len(common)
        examples_capped += len(common) - len(kept)
        if len(kept) < batch_size:
            without_batch.append(str(number))
        else:
            rows[str(number)] = kept
    notes = []
    unassigned = len(labels) - sum(map(len, parts))
    if unassigned:
        notes.append(f"{unassigned} of {len(labels)} training examples belong to no client")
    if pairs_dropped:
        notes.append(
            f"labels with fewer than {settings.min_examples_per_label} examples on a client dropped there: "
            f"{pairs_dropped} times, {examples_dropped} examples"
        )
    if clients_capped:
        notes.append(
            f"clients capped at {settings.max_examples_per_client} examples: {clients_capped}, leaving out "
            f"{examples_capped} examples"
        )
    if without_batch:
        named = ", ".join(without_batch[:_NAMED]) + (", ..." if len(without_batch) > _NAMED else "")
        notes.append(
            f"clients without a full batch of {batch_size} examples, which do not take part: {len(without_batch)} of "
            f"{len(parts)} ({named})"
        )
    return ClientRows(rows, tuple(notes))


def sample_rows(rows: Rows, most: int, seed: int) -> Rows:
    """Return at most ``most`` of ``rows``, drawn without replacement, in ascending order."""
    if len(rows) <= most:
        return np.sort(rows)
    return np.sort(np.random.default_rng(seed).choice(rows, size=most, replace=False))
