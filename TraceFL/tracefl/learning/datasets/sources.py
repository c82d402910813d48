"""Where data sets come from: the types that every source returns, and the registry of sources."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tracefl.common.names import did_you_mean
from tracefl.errors import ConfigError
from tracefl.learning.datasets.settings import DatasetSettings

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """One split, whose examples are read only on demand.

    Attributes:
        labels: ``(N,)`` int64 classes, 0 to ``num_classes - 1``.
        read: Returns the examples of given rows, in their order: PIL images, uint8 arrays ``(H, W[, 3])``, or texts.
    """

    labels: Rows
    read: Callable[[Rows], list[Any]]

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
    """

    name: str
    kind: str
    train: Split
    test: Split
    label_names: tuple[str, ...]

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.label_names)


Source = Callable[[DatasetSettings, int], RawDataset]

_SOURCES: dict[str, Source] = {}


def register_source(name: str) -> Callable[[Source], Source]:
    """Register a function ``(settings, seed) -> RawDataset`` as the source ``name`` (the key ``dataset.source``)."""

    def register(source: Source) -> Source:
        _SOURCES[name] = source
        return source

    return register


def source_names() -> tuple[str, ...]:
    """Return the names of all registered sources, sorted."""
    return tuple(sorted(_SOURCES))


def check_source(settings: DatasetSettings) -> None:
    """Check that the source is registered.

    Raises:
        ConfigError: The source is not registered.
    """
    if settings.source not in _SOURCES:
        raise ConfigError(
            f"dataset.source is {settings.source!r}, which is not registered; set it to one of "
            f"{', '.join(source_names())}{did_you_mean(settings.source, source_names())}"
        )


def load_source(settings: DatasetSettings, seed: int) -> RawDataset:
    """Open the data set that ``settings.source`` names.

    Args:
        settings: The data set's configuration.
        seed: The run's root seed, for sources that draw their split or content at random.

    Raises:
        ConfigError: No such source is registered.
        DataError: The data set is absent, incomplete or not as described.
    """
    check_source(settings)
    return _SOURCES[settings.source](settings, seed)
