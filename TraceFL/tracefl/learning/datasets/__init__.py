"""Data sets: where they come from, how clients share them, and how examples are prepared and kept.

Libraries that only one source needs are imported when it is used.
"""

from typing import TYPE_CHECKING

from tracefl.common.imports import on_demand

if TYPE_CHECKING:
    from tracefl.learning.datasets.federated import (
        Encode,
        FederatedData,
        prepare,
        prepare_client,
        prepare_server,
        training_texts,
    )
    from tracefl.learning.datasets.loading import check_source, load_source, source_names
    from tracefl.learning.datasets.partitioning import PARTITIONS, PartitionSettings, partition_rows
    from tracefl.learning.datasets.settings import DatasetSettings
    from tracefl.learning.datasets.sources import RawDataset, Split, register_source
    from tracefl.learning.datasets.storage import load_examples, save_examples
    from tracefl.learning.datasets.transforms import images_to_tensor

__getattr__ = on_demand(__name__, __file__)  # the settings are read before torch is imported

__all__ = [
    "check_source",
    "DatasetSettings",
    "RawDataset",
    "Split",
    "load_source",
    "register_source",
    "source_names",
    "PARTITIONS",
    "PartitionSettings",
    "partition_rows",
    "Encode",
    "FederatedData",
    "prepare",
    "prepare_client",
    "prepare_server",
    "training_texts",
    "images_to_tensor",
    "save_examples",
    "load_examples",
]
