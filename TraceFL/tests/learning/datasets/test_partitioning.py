import subprocess
import sys
import time

import numpy as np
import pytest

from tracefl.errors import ConfigError, DataError
from tracefl.learning.datasets import PARTITIONS, PartitionSettings, partition_rows


@pytest.fixture
def labels():
    # 10 classes, 2,003 examples: divisible by nothing the partitioners would like.
    return np.random.default_rng(7).integers(0, 10, 2003)


@pytest.mark.parametrize("kind", PARTITIONS)
@pytest.mark.parametrize("num_clients", [1, 3, 10, 97])
@pytest.mark.parametrize("seed", [0, 1])
def test_no_example_goes_to_two_clients(labels, kind, num_clients, seed):
    parts = partition_rows(labels, num_clients, PartitionSettings(kind, 0.3), seed)
    rows = np.concatenate(parts)
    assert len(parts) == num_clients
    assert len(np.unique(rows)) == len(rows)
    assert np.isin(rows, np.arange(len(labels))).all()
    assert all((np.diff(part) > 0).all() for part in parts)  # ascending
    if kind in ("dirichlet", "iid"):
        assert len(rows) == len(labels)


@pytest.mark.parametrize("alpha", [1e-300, 1e-3, 0.1, 1, 1e6])
def test_dirichlet_uses_every_example_once_at_any_alpha(labels, alpha):
    parts = partition_rows(labels, 10, PartitionSettings("dirichlet", alpha), 0)
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(len(labels)))


def test_dirichlet_clients_differ_more_as_alpha_shrinks(labels):
    # Mean largest share of a label among the clients: 1 when one client has all of it, 0.1 when all have the same.
    shares = []
    for alpha in (0.01, 0.1, 1.0, 10.0, 1000.0):
        parts = [partition_rows(labels, 10, PartitionSettings("dirichlet", alpha), seed) for seed in range(5)]
        counts = np.array([[np.bincount(labels[part], minlength=10) for part in each] for each in parts])
        shares.append((counts.max(axis=1) / counts.sum(axis=1)).mean())
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > 0.9
    assert shares[-1] < 0.13


def test_pathological_clients_hold_their_number_of_classes(labels):
    parts = partition_rows(labels, 10, PartitionSettings("pathological", 1.0, classes_per_client=3), 0)
    assert {len(np.unique(labels[part])) for part in parts} == {3}
    assert len(np.concatenate(parts)) == len(labels)  # as many clients as classes: none is left over


def test_shards_give_clients_few_classes_and_equal_sizes(labels):
    parts = partition_rows(labels, 10, PartitionSettings("shards", 1.0, shards_per_client=2), 0)
    assert {len(part) for part in parts} == {200}
    assert max(len(np.unique(labels[part])) for part in parts) <= 4  # a shard of 100 spans at most two classes


def test_iid_clients_are_alike(labels):
    parts = partition_rows(labels, 5, PartitionSettings("iid", 1.0), 0)
    counts = np.array([np.bincount(labels[part], minlength=10) for part in parts])
    assert {len(part) for part in parts} == {400, 401}
    assert (counts > 20).all()


def test_neighbouring_rows_do_not_stay_together():
    # One class: without a shuffle, each client would hold one block of rows.
    parts = partition_rows(np.zeros(1000, dtype=np.int64), 4, PartitionSettings("dirichlet", 1e6), 0)
    assert all(part.max() - part.min() > 900 for part in parts)


@pytest.mark.parametrize("kind", PARTITIONS)
def test_seed_alone_decides(labels, kind):
    settings = PartitionSettings(kind, 0.3)
    np.random.seed(0)  # numpy's global generator must not matter
    first = partition_rows(labels, 10, settings, 5)
    np.random.seed(1)
    same, other = partition_rows(labels, 10, settings, 5), partition_rows(labels, 10, settings, 6)
    assert [part.tolist() for part in first] == [part.tolist() for part in same]
    assert [part.tolist() for part in first] != [part.tolist() for part in other]


def test_another_process_without_the_harness_gives_the_same_partition():
    code = (
        "import sys\n"
        "for name in ('flwr', 'ray', 'hydra', 'omegaconf', 'wandb'): sys.modules[name] = None\n"
        "import numpy as np\n"
        "from tracefl.learning.datasets import PARTITIONS, PartitionSettings, partition_rows\n"
        "for kind in PARTITIONS:\n"
        "    parts = partition_rows(np.arange(500) % 7, 5, PartitionSettings(kind, 0.3), 3)\n"
        "    print([part.tolist() for part in parts])\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    here = [partition_rows(np.arange(500) % 7, 5, PartitionSettings(kind, 0.3), 3) for kind in PARTITIONS]
    assert result.stdout.splitlines() == [str([part.tolist() for part in parts]) for parts in here]


@pytest.mark.parametrize("kind", PARTITIONS)
def test_hundred_clients_of_sixty_thousand_rows_take_seconds(kind):
    labels = np.arange(60_000) % 10
    started = time.process_time()
    partition_rows(labels, 100, PartitionSettings(kind, 0.1), 0)
    assert time.process_time() - started < 10


@pytest.mark.parametrize("kind", PARTITIONS)
def test_more_clients_than_examples(kind):
    with pytest.raises(DataError, match=r"num_clients is 11 but there are 10 training examples; lower num_clients"):
        partition_rows(np.arange(10) % 2, 11, PartitionSettings(kind, 1.0, 1, 1), 0)


def test_no_clients():
    with pytest.raises(ConfigError, match="num_clients must be a whole number of at least 1, got 0"):
        partition_rows(np.arange(10), 0, PartitionSettings("iid", 1.0), 0)


def test_more_shards_than_examples():
    with pytest.raises(DataError, match=r"dataset\.shards_per_client=3 .* asks for 12 shards of 10"):
        partition_rows(np.arange(10) % 2, 4, PartitionSettings("shards", 1.0, shards_per_client=3), 0)


def test_more_classes_a_client_than_there_are():
    with pytest.raises(DataError, match=r"dataset\.classes_per_client is 3 but .* 2 classes"):
        partition_rows(np.arange(10) % 2, 2, PartitionSettings("pathological", 1.0, classes_per_client=3), 0)


def test_label_too_rare_for_the_clients_that_need_it():
    labels = np.array([0] * 50 + [1] * 2)
    with pytest.raises(DataError, match=r"partition 'pathological' of 52 examples among 10 clients failed: Label: 1"):
        partition_rows(labels, 10, PartitionSettings("pathological", 1.0, classes_per_client=2), 0)
