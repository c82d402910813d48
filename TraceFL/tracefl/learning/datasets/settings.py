"""The checked contents of a data set's configuration file."""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from tracefl.conf.constraints import Count, described
from tracefl.errors import ConfigError
from tracefl.learning.datasets.partitioning import PartitionKind, PartitionSettings

CHANNELS = 3
"""Every image is converted to red, green and blue."""

_COLUMNS = described("a list of columns, such as [image] or []")
_NAMES = described("a list of names, such as [cat, dog]")
_NUMBERS = described("a list of numbers, such as [0.5, 0.5, 0.5] or []")


@dataclass(frozen=True)
class DatasetSettings:
    """The keys of ``conf/dataset/*.yaml``.

    ``mean`` and ``std`` are emptied for text, which has no channels.

    Attributes:
        name: Name of the data set; for the source ``hub`` also its id on the Hugging Face hub or its folder.
        source: Registered source that reads the data set, see ``source_names()``.
        hub_id: Id on the Hugging Face hub, ``None`` to use ``name``.
        kind: ``image`` or ``text``.
        path: Folder of parquet files, in one of the hub's layouts, for the source ``hub``; needs no network.
        train_split: Name of the split that is divided among the clients, for the source ``hub``; several are joined
            by ``+``.
        test_split: The same for the split that the server tests on.
        root: Folder with MedMNIST's ``.npz`` files; needs no network.
        input_columns: The image's column, or the columns of text to join.
        label_column: Column of the labels.
        label_names: Names of classes 0, 1, ...; ``None`` to take them from the files.
        mean: One mean per channel, of pixels scaled to 0..1.
        std: One standard deviation per channel, above 0.
        image_size: Height and width of an image, in pixels.
        max_tokens: Length that each text is cut or padded to, in tokens.
        max_examples_per_client: Most training examples that a client keeps.
        max_server_examples: Most test examples that the server keeps.
        min_examples_per_label: A client drops a label of which it has fewer examples.
        partition: Kind of partition, see ``PartitionSettings``.
        classes_per_client: Number of classes per client under ``pathological``.
        shards_per_client: Number of shards per client under ``shards``.

    Raises:
        ConfigError: ``mean`` or ``std`` does not have one legal number per channel.
    """

    name: str
    source: str
    hub_id: str | None
    kind: Literal["image", "text"]
    path: str | None
    train_split: str
    test_split: str
    root: str | None
    input_columns: Annotated[tuple[str, ...], _COLUMNS]
    label_column: str | None
    label_names: Annotated[tuple[str, ...], _NAMES] | None
    mean: Annotated[tuple[float, ...], _NUMBERS]
    std: Annotated[tuple[float, ...], _NUMBERS]
    image_size: Count
    max_tokens: Count
    max_examples_per_client: Count
    max_server_examples: Count
    min_examples_per_label: Count
    partition: PartitionKind
    classes_per_client: Count
    shards_per_client: Count

    def __post_init__(self) -> None:
        if self.label_names is not None:
            object.__setattr__(self, "label_names", tuple(map(str, self.label_names)))  # YAML reads [0,1] as numbers
        if self.kind == "text":
            object.__setattr__(self, "mean", ())
            object.__setattr__(self, "std", ())
        for key, lowest in () if self.kind == "text" else (("mean", 0.0), ("std", math.ulp(0.0))):
            values = getattr(self, key)
            numbers = [v for v in values if isinstance(v, int | float) and lowest <= v < math.inf]
            if len(values) != CHANNELS or len(numbers) != CHANNELS:
                raise ConfigError(
                    f"dataset.{key} must be {CHANNELS} numbers {'above 0' if lowest else 'of at least 0'}, one "
                    f"for each channel of pixels in 0..1, got {list(values)}"
                )

    def partition_settings(self, dirichlet_alpha: float) -> PartitionSettings:
        """Return the partition's settings, with the run's ``dirichlet_alpha``."""
        return PartitionSettings(self.partition, dirichlet_alpha, self.classes_per_client, self.shards_per_client)
