"""Data sets by the name of their source."""

from tracefl.common.names import did_you_mean
from tracefl.errors import ConfigError
from tracefl.learning.datasets import bundled, hub, medmnist  # noqa: F401 - they register their sources
from tracefl.learning.datasets.settings import DatasetSettings
from tracefl.learning.datasets.sources import SOURCES, RawDataset


def source_names() -> tuple[str, ...]:
    """Return the names of all registered sources, sorted."""
    return tuple(sorted(SOURCES))


def check_source(settings: DatasetSettings) -> None:
    """Check that the source is registered.

    Raises:
        ConfigError: The source is not registered.
    """
    if settings.source not in SOURCES:
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
    return SOURCES[settings.source](settings, seed)
