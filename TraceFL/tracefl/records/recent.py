"""A run's last rounds, kept on disk while it runs for the rules that look back: their weights, not their results.

``store`` may keep none of them, and what it keeps is written while the next round trains. Kept are the weights as the
clients sent them, from which the stored ones do not differ, so that a stored run gives the same suspicions.
"""

import shutil
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from tracefl.provenance import RoundRecord
from tracefl.records.weights import StoredClients, cannot_write, load_unchecked, save_weights

_GLOBAL = ("previous_global", "global_weights", "before_noise")


class RecentRounds:
    """The last rounds of a run, each read when it is asked for.

    Args:
        folder: Where they are kept, in a run's working folder; both are made with the first round, the run's is not.
        limit: How many, at least 1.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder = folder
        self._limit = limit
        self._kept: deque[RoundRecord] = deque()  # without their weights

    @property
    def readers(self) -> tuple[Callable[[], RoundRecord], ...]:
        """What reads each round when it is called, oldest first."""
        return tuple(partial(self._read, kept) for kept in self._kept)

    def add(self, record: RoundRecord) -> None:
        """Keep a round, and delete the oldest one where that makes too many.

        Raises:
            RecordError: The disk is full or fails.
        """
        place = self._place(record)
        try:
            for folder in (self._folder.parent, self._folder, place):
                folder.mkdir(exist_ok=folder != place)
            for name in _GLOBAL:
                if (state := getattr(record, name)) is not None:
                    save_weights(place / f"{name}.safetensors", state)
            for client_id, weights in record.clients.items():
                save_weights(place / f"client-{client_id}.safetensors", weights)
            self._kept.append(_without_weights(record))
            if len(self._kept) > self._limit:
                shutil.rmtree(self._place(self._kept.popleft()))
        except OSError as error:
            raise cannot_write(place, error) from error

    def _read(self, kept: RoundRecord) -> RoundRecord:
        place = self._place(kept)
        previous, model, *noiseless = (
            load_unchecked(place, f"{name}.safetensors") for name in _GLOBAL if getattr(kept, name) is not None
        )
        files = {client_id: f"client-{client_id}.safetensors" for client_id in kept.clients}
        return replace(
            kept,
            clients=StoredClients(place, files, previous),
            previous_global=previous,
            global_weights=model,
            before_noise=noiseless[0] if noiseless else None,
        )

    def _place(self, record: RoundRecord) -> Path:
        return self._folder / f"{record.server_round:04d}"


def _without_weights(record: RoundRecord) -> RoundRecord:
    return replace(
        record,
        clients=dict.fromkeys(record.clients),
        previous_global={},
        global_weights={},
        before_noise=None if record.before_noise is None else {},
    )
