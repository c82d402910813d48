"""Divide a training split among clients with flwr-datasets' partitioners.

Rows are shuffled with the seed before they are divided, so that the order of the files (one patient's scans next to
each other, say) does not decide which client holds what.
"""

import logging
import warnings
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from tracefl.common.seeds import derive_seed
from tracefl.conf.constraints import Count, read_value
from tracefl.errors import DataError

PartitionKind = Literal["dirichlet", "pathological", "shards", "iid"]
PARTITIONS = get_args(PartitionKind)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PartitionSettings:
    """How training examples are divided among clients.

    Attributes:
        kind: ``dirichlet``: each label is divided in proportions drawn from a symmetric Dirichlet distribution
            (Yurochkin et al. 2019); ``pathological``: each client holds ``classes_per_client`` classes; ``shards``:
            rows sorted by label are cut into equal shards, ``shards_per_client`` each (McMahan et al. 2017); ``iid``:
            equal parts at random.
        dirichlet_alpha: Concentration, above 0. Small values give each client few labels, large ones even clients.
        classes_per_client: Number of classes per client under ``pathological``, at least 1.
        shards_per_client: Number of shards per client under ``shards``, at least 1.
    """

    kind: PartitionKind
    dirichlet_alpha: float
    classes_per_client: int = 2
    shards_per_client: int = 2


def partition_rows(
    labels: NDArray[np.int64], num_clients: int, partition: PartitionSettings, seed: int
) -> list[NDArray[np.int64]]:
    """Divide rows among clients.

    Args:
        labels: ``(N,)`` class of each row.
        num_clients: Number of clients, at least 1.
        partition: How to divide.
        seed: The run's root seed.

    Returns:
        Each client's rows in ascending order, indexed by partition id. No row occurs twice. A client may get none, and
        ``shards`` and ``pathological`` may leave rows unassigned.

    Raises:
        ConfigError: ``num_clients`` is below 1.
        DataError: The examples cannot be divided among this many clients, classes or shards.
    """
    _check_possible(labels, num_clients, partition)
    from datasets import Dataset

    partition_seed = derive_seed(seed, "partition")
    order = np.random.default_rng(partition_seed).permutation(len(labels))
    partitioner = _partitioner(num_clients, partition, partition_seed)
    partitioner.dataset = Dataset.from_dict({"label": labels[order], "row": order})
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about unassigned classes (counted by the caller) and pyarrow's options
            parts = [np.array(partitioner.load_partition(i)["row"][:], dtype=np.int64) for i in range(num_clients)]
    except ValueError as error:
        raise DataError(
            f"partition {partition.kind!r} of {len(labels)} examples among {num_clients} clients failed: {error} "
            "Lower num_clients or choose another dataset.partition"
        ) from error
    log.debug("partition=%s examples_per_client=%s", partition.kind, [len(part) for part in parts])
    return [np.sort(part) for part in parts]


def _check_possible(labels: NDArray[np.int64], num_clients: int, partition: PartitionSettings) -> None:
    """Refuse what would make the partitioners raise an unclear error or divide by zero."""
    read_value(Count, num_clients, "num_clients")
    if num_clients > len(labels):
        raise DataError(
            f"num_clients is {num_clients} but there are {len(labels)} training examples; lower num_clients"
        )
    num_shards = num_clients * partition.shards_per_client
    if partition.kind == "shards" and num_shards > len(labels):
        raise DataError(
            f"dataset.shards_per_client={partition.shards_per_client} for num_clients={num_clients} asks for "
            f"{num_shards} shards of {len(labels)} training examples; lower one of them"
        )
    num_labels = len(np.unique(labels))
    if partition.kind == "pathological" and partition.classes_per_client > num_labels:
        raise DataError(
            f"dataset.classes_per_client is {partition.classes_per_client} but the training examples have "
            f"{num_labels} classes; lower it"
        )


def _partitioner(num_clients: int, partition: PartitionSettings, seed: int) -> Any:
    from flwr_datasets.partitioner import (
        DirichletPartitioner,
        IidPartitioner,
        PathologicalPartitioner,
        ShardPartitioner,
    )

    if partition.kind == "dirichlet":
        return DirichletPartitioner(
            num_clients,
            "label",
            alpha=float(partition.dirichlet_alpha),
            min_partition_size=0,
            self_balancing=False,
            seed=seed,
        )
    if partition.kind == "pathological":
        # "first-deterministic" leaves no class out if there are at least as many clients as classes.
        mode: Any = "first-deterministic"
        return PathologicalPartitioner(num_clients, "label", partition.classes_per_client, mode, seed=seed)
    if partition.kind == "shards":
        return ShardPartitioner(num_clients, "label", partition.shards_per_client, seed=seed)
    return IidPartitioner(num_clients)
