"""What a data set's configuration file holds, checked."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tracefl.errors import ConfigError
from tracefl.learning.datasets.checks import check_positive_integer
from tracefl.learning.datasets.partitioning import PartitionSettings

KINDS = ("image", "text")
CHANNELS = 3
"""Every image is brought to red, green and blue."""


@dataclass(frozen=True)
class DatasetSettings:
    """The keys of ``conf/dataset/*.yaml``, as in ``DatasetSettings(**cfg.dataset)``.

    Lists are kept as tuples. ``mean`` and ``std`` are emptied for text, which has no channels.

    Attributes:
        name: Name of the data set; for the source ``hub`` also its id on the Hugging Face hub or its folder.
        source: Registered source that reads it, see ``source_names()``.
        hub_id: Id on the Hugging Face hub, ``None`` to use ``name``.
        kind: ``image`` or ``text``.
        path: Folder with ``train*.parquet`` and ``test*.parquet``, for the source ``hub``. Then no network is used.
        root: Folder with MedMNIST's ``.npz`` files. Then no network is used.
        input_columns: The image's column, or the columns of text to join.
        label_column: Column of the labels.
        label_names: Names of classes 0, 1, ... where the files have none.
        mean: One mean a channel, of pixels scaled to 0..1.
        std: One standard deviation a channel, above 0.
        image_size: Pixels an image is high and wide.
        max_tokens: Tokens a text is cut and padded to.
        max_examples_per_client: Training examples a client keeps at most.
        max_server_examples: Test examples the server keeps at most.
        min_examples_per_label: A client drops labels that it has fewer examples of.
        partition: Kind of partition, see ``PartitionSettings``.
        classes_per_client: Classes a client holds under ``pathological``.
        shards_per_client: Shards a client holds under ``shards``.

    Raises:
        ConfigError: A value is illegal; the message names its key.
    """

    name: str
    source: str
    hub_id: str | None
    kind: str
    path: str | None
    root: str | None
    input_columns: Sequence[str]
    label_column: str | None
    label_names: Sequence[str] | None
    mean: Sequence[float]
    std: Sequence[float]
    image_size: int
    max_tokens: int
    max_examples_per_client: int
    max_server_examples: int
    min_examples_per_label: int
    partition: str
    classes_per_client: int
    shards_per_client: int

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(f"dataset.kind is {self.kind!r}; set it to one of {', '.join(KINDS)}")
        for key in ("input_columns", "label_names", "mean", "std"):
            self._keep_as_tuple(key)
        if self.label_names is not None:
            object.__setattr__(self, "label_names", tuple(map(str, self.label_names)))  # [0,1] is read as numbers
        if self.kind == "text":
            object.__setattr__(self, "mean", ())
            object.__setattr__(self, "std", ())
        else:
            self._check_channels("mean", lowest=0.0)
            self._check_channels("std", lowest=math.ulp(0.0))
        for key in (
            "image_size",
            "max_tokens",
            "max_examples_per_client",
            "max_server_examples",
            "min_examples_per_label",
        ):
            check_positive_integer(f"dataset.{key}", getattr(self, key))
        self.partition_settings(dirichlet_alpha=1.0)  # so that a bad key is refused here, with the others

    def partition_settings(self, dirichlet_alpha: float) -> PartitionSettings:
        """Return the partition's settings, with the run's ``dirichlet_alpha`` (above 0)."""
        return PartitionSettings(self.partition, dirichlet_alpha, self.classes_per_client, self.shards_per_client)

    def _keep_as_tuple(self, key: str) -> None:
        value = getattr(self, key)
        if value is None and key == "label_names":
            return
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise ConfigError(f"dataset.{key} is {value!r}; set it to a list, such as dataset.{key}=[]")
        object.__setattr__(self, key, tuple(value))

    def _check_channels(self, key: str, lowest: float) -> None:
        values = getattr(self, key)
        numbers = [v for v in values if isinstance(v, int | float) and math.isfinite(v) and v >= lowest]
        if len(values) != CHANNELS or len(numbers) != CHANNELS:
            raise ConfigError(
                f"dataset.{key} is {list(values)}; set it to {CHANNELS} numbers, one a channel of pixels scaled to "
                f"0..1, {'above 0' if lowest else 'from 0'}"
            )
