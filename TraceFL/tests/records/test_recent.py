"""The last rounds that a run keeps for rules that look back."""

import dataclasses

import pytest
from torch.testing import assert_close

from tests.helpers.random_rounds import record, result
from tracefl.errors import RecordError
from tracefl.records.recent import RecentRounds
from tracefl.records.store import RoundStore


def test_the_last_rounds_read_back_as_they_were(tmp_path):
    recent = RecentRounds(tmp_path / "work/rounds", limit=2)
    assert recent.readers == ()
    for number in (1, 2, 3):
        recent.add(record(number))
    found = [read() for read in recent.readers]
    assert [each.server_round for each in found] == [2, 3]
    for each, number in zip(found, (2, 3), strict=True):
        for name in ("clients", "client_weights", "previous_global", "global_weights"):
            assert_close(dict(getattr(each, name)), dict(getattr(record(number), name)), rtol=0, atol=0)
        assert each.before_noise is None
    assert [path.name for path in sorted((tmp_path / "work/rounds").iterdir())] == ["0002", "0003"]


def test_the_average_before_the_noise_is_kept(tmp_path):
    recent = RecentRounds(tmp_path / "work/rounds", limit=1)
    recent.add(dataclasses.replace(record(), before_noise=record(2).global_weights))
    assert_close(dict(recent.readers[0]().made), dict(record(2).global_weights), rtol=0, atol=0)


def test_a_run_s_folder_that_was_removed_is_not_made_again(tmp_path):
    with pytest.raises(RecordError, match="cannot be written"):
        RecentRounds(tmp_path / "gone/kept/rounds", limit=1).add(record())


def test_rounds_before_one_end_at_the_first_gap(tmp_path):
    store = RoundStore(tmp_path, "all")
    for number in (1, 2, 4, 5):
        store.commit(result(number), record(number))
    assert store.stored_before(6, limit=5) == [4, 5]
    assert store.stored_before(3, limit=5) == [1, 2]
    assert store.stored_before(3, limit=1) == [2]
    assert store.stored_before(4, limit=5) == []
    assert store.stored_before(1, limit=5) == []
