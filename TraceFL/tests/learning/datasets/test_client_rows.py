import numpy as np

from tracefl.learning.datasets.client_rows import sample_rows, select_rows


def test_rare_labels_are_dropped_per_client(make_settings):
    # Client 0 holds 12 of label 0 and 9 of label 1; client 1 holds 10 of label 1. The limit is 10.
    labels = np.array([0] * 12 + [1] * 19)
    parts = [np.arange(21), np.arange(21, 31)]
    selection = select_rows(labels, parts, make_settings(), batch_size=4, seed=0)
    assert selection.rows["0"].tolist() == list(range(12))
    assert selection.rows["1"].tolist() == list(range(21, 31))
    assert selection.notes == ("labels with fewer than 10 examples on a client dropped there: 1 times, 9 examples",)


def test_clients_are_capped_by_a_seeded_sample(make_settings):
    settings = make_settings(max_examples_per_client=20)
    labels, parts = np.zeros(200, dtype=np.int64), [np.arange(100), np.arange(100, 200)]
    first, same, other = (select_rows(labels, parts, settings, 4, seed).rows for seed in (0, 0, 1))
    assert len(first["0"]) == len(np.unique(first["0"])) == 20
    assert first["0"].tolist() == same["0"].tolist() != other["0"].tolist()
    assert first["0"].tolist() != list(range(20))  # not the first rows
    assert first["0"].tolist() != (first["1"] - 100).tolist()  # clients draw apart
    notes = select_rows(labels, parts, settings, 4, 0).notes
    assert notes == ("clients capped at 20 examples: 2, leaving out 160 examples",)


def test_clients_without_a_batch_leave_and_the_others_keep_their_ids(make_settings):
    labels = np.zeros(63, dtype=np.int64)
    parts = [np.arange(0), np.arange(31), np.arange(31, 63)]
    selection = select_rows(labels, parts, make_settings(), batch_size=32, seed=0)
    assert list(selection.rows) == ["2"]
    assert selection.notes == ("clients without a full batch of 32 examples, which do not take part: 2 of 3 (0, 1)",)


def test_batch_is_counted_after_labels_are_dropped(make_settings):
    labels = np.array([0] * 30 + [1] * 9)  # 39 examples, 30 after label 1 is gone
    assert not select_rows(labels, [np.arange(39)], make_settings(), batch_size=32, seed=0).rows


def test_examples_of_no_client_are_noted(make_settings):
    selection = select_rows(np.zeros(50, dtype=np.int64), [np.arange(40)], make_settings(), batch_size=4, seed=0)
    assert selection.notes == ("10 of 50 training examples belong to no client",)


def test_sample_keeps_everything_when_there_is_room():
    assert sample_rows(np.array([3, 1, 2]), 3, seed=0).tolist() == [1, 2, 3]
