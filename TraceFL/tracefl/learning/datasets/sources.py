"""Where data sets come from: the types that every source returns, and how a source is registered."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tracefl.learning.datasets.settings import DatasetSettings

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """One split, whose examples are read only on demand.

    Attributes:
        labels: ``(N,)`` int64 classes, 0 to ``num_classes - 1``.
        read: Returns the examples of given rows, in their order: PIL images, arrays ``(H, W[, C])`` as
            ``images_to_tensor`` takes them, or texts. An image may be decoded only when it is taken.
    """

    labels: Rows
    read: Callable[[Rows], Sequence[Any]]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class RawDataset:
    """A data set as its source returns it, before it is partitioned and prepared.

    Attributes:
        name: Name of the data set.
        kind: ``image`` or ``text``.
        train: Split that is divided among the clients.
        test: Split that the server samples from.
        label_names: Name of each class; a class may have no examples.
        notes: What was chosen or left out without being asked for, one line each.
    """

    name: str
    kind: str
    train: Split
    test: Split
    label_names: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.label_names)


Source = Callable[[DatasetSettings, int], RawDataset]

SOURCES: dict[str, Source] = {}
"""Those registered so far, by the value of ``dataset.source``; ``loading.py`` registers our own."""


def register_source(name: str) -> Callable[[Source], Source]:
    """Register a function ``(settings, seed) -> RawDataset`` as the source ``name`` (the key ``dataset.source``)."""

    def register(source: Source) -> Source:
        SOURCES[name] = source
        return source

    return register
