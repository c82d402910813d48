import numpy as np
import pytest
import torch

from tracefl.errors import ConfigError, DataError
from tracefl.learning.datasets import PartitionSettings, load_source, prepare, training_texts
from tracefl.learning.examples import PIXELS

IID = PartitionSettings("iid", 1.0)


def encode(texts):
    numbers = torch.tensor([[int(text.split()[1]), 1] for text in texts])
    return {"input_ids": numbers, "attention_mask": torch.ones_like(numbers)}


def test_image_clients_hold_their_rows_and_labels(make_raw, make_settings):
    train = np.arange(200) % 2
    raw, _ = make_raw(train, np.arange(50) % 2)
    data = prepare(raw, make_settings(), IID, num_clients=4, batch_size=16, seed=0, encode=None)
    assert list(data.clients) == ["0", "1", "2", "3"]
    assert (data.kind, data.num_classes, data.label_names) == ("image", 2, ("class 0", "class 1"))
    rows = torch.cat([examples.rows for examples in data.clients.values()])
    assert sorted(rows.tolist()) == list(range(200))
    for examples in data.clients.values():
        assert examples.features[PIXELS].shape == (len(examples), 3, 8, 8)
        assert examples.features[PIXELS].dtype == torch.uint8
        assert examples.features[PIXELS][:, 0, 0, 0].tolist() == examples.rows.tolist()  # image i is gray i
        assert examples.labels.tolist() == train[examples.rows].tolist()
        assert (examples.mean, examples.std) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert len(data.server) == 50
    assert data.notes == ()


def test_text_goes_through_the_tokenizer(make_raw, make_settings):
    raw, _ = make_raw(np.arange(100) % 2, np.arange(40) % 2, kind="text")
    data = prepare(raw, make_settings(kind="text"), IID, 2, 16, 0, encode)
    for examples in (*data.clients.values(), data.server):
        assert examples.features["input_ids"].dtype == torch.int32
        assert examples.features["input_ids"][:, 0].tolist() == examples.rows.tolist()
        assert set(examples.features) == {"input_ids", "attention_mask"}
        assert examples.mean == ()


def test_label_counts_are_what_clients_keep(make_raw, make_settings):
    raw, _ = make_raw(np.random.default_rng(0).integers(0, 5, 600), np.arange(50) % 5, num_classes=6)
    data = prepare(raw, make_settings(), PartitionSettings("dirichlet", 0.1), 12, 16, 0, None)
    assert data.label_counts.shape == (12, 6)
    assert data.label_counts.dtype == torch.int64
    assert 0 < len(data.clients) < 12  # the setting is uneven enough for the test to mean something
    for number in range(12):
        examples = data.clients.get(str(number))
        expected = torch.zeros(6, dtype=torch.int64) if examples is None else examples.label_counts(6)
        assert data.label_counts[number].tolist() == expected.tolist()
    kept = data.label_counts[data.label_counts > 0]
    assert kept.min() >= 10
    assert list(data.clients) == sorted(data.clients, key=int)


def test_server_examples_are_a_seeded_sample(make_raw, make_settings):
    raw, _ = make_raw(np.zeros(100), np.arange(200) % 3)
    settings = make_settings(max_server_examples=30)
    first, same, other = (prepare(raw, settings, IID, 2, 8, seed, None).server.rows.tolist() for seed in (0, 0, 1))
    assert len(set(first)) == 30
    assert first == same != other
    assert first != list(range(30))
    assert "server keeps a sample of 30 of 200 test examples" in prepare(raw, settings, IID, 2, 8, 0, None).notes


def test_only_needed_rows_are_decoded(make_raw, make_settings):
    raw, read_rows = make_raw(np.zeros(100), np.zeros(100))
    settings = make_settings(max_examples_per_client=20, max_server_examples=10)
    data = prepare(raw, settings, IID, 2, 8, 0, None)
    assert sorted(read_rows["train"]) == sorted(torch.cat([e.rows for e in data.clients.values()]).tolist())
    assert sorted(read_rows["test"]) == data.server.rows.tolist()


def test_nobody_takes_part(make_raw, make_settings):
    raw, _ = make_raw(np.arange(100) % 2, np.zeros(10))
    with pytest.raises(DataError, match=r"none of 10 clients has a full batch of 32 .* lower num_clients, batch_size"):
        prepare(raw, make_settings(), IID, 10, 32, 0, None)


def test_text_without_tokenizer(make_raw, make_settings):
    raw, _ = make_raw(np.zeros(40), np.zeros(10), kind="text")
    with pytest.raises(ConfigError, match="is text but the model reads images"):
        prepare(raw, make_settings(kind="text"), IID, 1, 8, 0, None)


def test_batch_size_below_one(make_raw, make_settings):
    raw, _ = make_raw(np.zeros(40), np.zeros(10))
    with pytest.raises(ConfigError, match="batch_size must be a whole number of at least 1, got 0"):
        prepare(raw, make_settings(), IID, 1, 0, 0, None)


def test_digits_are_prepared_the_same_twice(make_settings):
    settings = make_settings(name="digits", source="digits")
    first, same = (
        prepare(load_source(settings, 3), settings, settings.partition_settings(0.3), 10, 16, 3, None) for _ in range(2)
    )
    assert list(first.clients) == list(same.clients)
    for client_id, examples in first.clients.items():
        assert torch.equal(examples.features[PIXELS], same.clients[client_id].features[PIXELS])
    assert torch.equal(first.server.rows, same.server.rows)
    assert first.notes == same.notes


def test_training_texts_are_spread_over_the_split(make_raw):
    raw, _ = make_raw(np.zeros(10), np.zeros(2), kind="text")
    assert training_texts(raw, 5) == ["text 0", "text 2", "text 4", "text 6", "text 8"]
    assert len(training_texts(raw, 100)) == 10


def test_training_texts_of_images(make_raw):
    raw, _ = make_raw(np.zeros(10), np.zeros(2))
    with pytest.raises(DataError, match="of kind 'image', which has no texts"):
        training_texts(raw, 5)
