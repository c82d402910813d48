"""Data sets: where they come from, how clients share them, and how examples are prepared and kept.

Importing this package registers every source; libraries that only one source needs are imported when it is used.
"""

from tracefl.datasets import bundled, hub, medmnist  # noqa: F401 - they register their sources
from tracefl.datasets.federated import Encode, FederatedData, prepare, prepare_client, prepare_server, training_texts
from tracefl.datasets.partitioning import PARTITIONS, PartitionSettings, partition_rows
from tracefl.datasets.settings import DatasetSettings
from tracefl.datasets.sources import RawDataset, Split, check_source, load_source, register_source, source_names
from tracefl.datasets.storage import load_examples, save_examples
from tracefl.datasets.transforms import images_to_tensor

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
