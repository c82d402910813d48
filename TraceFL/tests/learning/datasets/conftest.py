import socket

import numpy as np
import pytest

from tracefl.conf.constraints import read
from tracefl.learning.datasets import DatasetSettings, RawDataset, Split


@pytest.fixture
def make_settings():
    """Settings of a small image data set, with any key replaced."""

    def make(**keys):
        values = {
            "name": "tiny",
            "source": "hub",
            "hub_id": None,
            "kind": "image",
            "path": None,
            "train_split": "train",
            "test_split": "test",
            "root": None,
            "input_columns": ["image"],
            "label_column": "label",
            "label_names": None,
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "image_size": 8,
            "max_tokens": 16,
            "max_examples_per_client": 2048,
            "max_server_examples": 2048,
            "min_examples_per_label": 10,
            "partition": "dirichlet",
            "classes_per_client": 2,
            "shards_per_client": 2,
        }
        return read(DatasetSettings, values | keys, "dataset")

    return make


@pytest.fixture
def no_network(monkeypatch):
    """Fail the test on any attempt to connect or to look up a host."""

    def refuse(*args, **kwargs):
        pytest.fail(f"network used: {args[1:]}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def make_raw():
    """A data set whose image number i is gray i % 256, or whose text number i is "text i"; records the rows read."""

    def make(train_labels, test_labels, kind="image", num_classes=None):
        def split(labels, read_rows):
            def read(rows):
                read_rows.extend(rows.tolist())
                if kind == "text":
                    return [f"text {row}" for row in rows]
                return [np.full((4, 4), row % 256, dtype=np.uint8) for row in rows]

            return Split(np.asarray(labels, dtype=np.int64), read)

        count = num_classes or int(max(np.max(train_labels), np.max(test_labels))) + 1
        read_rows = {"train": [], "test": []}
        raw = RawDataset(
            "tiny",
            kind,
            split(train_labels, read_rows["train"]),
            split(test_labels, read_rows["test"]),
            tuple(f"class {index}" for index in range(count)),
        )
        return raw, read_rows

    return make
