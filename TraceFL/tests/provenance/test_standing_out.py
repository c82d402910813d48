"""What stands out, added up over rounds that are worked by hand."""

import math
from types import SimpleNamespace

import pytest
import torch

from tracefl.provenance import StandOuts, class_suspicions
from tracefl.provenance.standing_out import FEWEST_CLIENTS, LEAST_SKILL


def found(suspicions, skill=0.5, prevented=()):
    """Return what class_suspicions reads of Confusions."""
    ids = tuple("abcdefgh"[: len(suspicions)])
    return SimpleNamespace(
        client_ids=ids,
        class_suspicion=torch.tensor(suspicions, dtype=torch.float64),
        skill=skill,
        prevented=dict.fromkeys(prevented),
    )


def test_sums_grow_by_what_exceeds_one_and_fall_to_zero_at_most():
    added = StandOuts()
    added.add(1, {"a": (1.5, 0.0), "b": (0.5, 2.0)})
    added.add(2, {"a": (1.75, 3.0)})
    assert added.sums == {"a": (1.25, 2.0), "b": (0.0, 1.0)}
    added.add(4, {"a": (-1.0, 1.5), "b": (0.0, 0.5)})
    assert added.sums == {"a": (0.0, 2.5), "b": (0.0, 0.5)}


def test_a_client_stands_out_for_its_highest_class_since_its_sum_last_left_zero():
    added = StandOuts()
    added.add(1, {"a": (3.0, 0.0)})
    added.add(2, {"a": (-9.0, 2.0)})
    (each,) = added.add(5, {"a": (1.25, 1.5)})
    assert (each.client_id, each.toward, each.total, each.since) == ("a", 1, 1.5, 2)
    (each,) = added.add(6, {"a": (3.0, -9.0)})
    assert (each.toward, each.total, each.since) == (0, 2.25, 5)  # not since round 1: it was honest in between


def test_the_bar_is_what_so_many_honest_runs_reach():
    for share in (0.5, 0.1, 0.01, 1e-6):
        added = StandOuts(share)
        (each,) = added.add(1, {"a": (added.bar + 1 + 1e-9,)})
        assert each.honest_share == pytest.approx(share)
        assert added.is_named(each)
        (lower,) = StandOuts(share).add(1, {"a": (added.bar + 0.99,)})
        assert lower.honest_share > share
        assert not added.is_named(lower)


def test_who_does_not_stand_out_at_all_is_never_named():
    added = StandOuts(0.99)
    assert added.bar < 0
    (each,) = added.add(1, {"a": (0.5,)})
    assert (each.total, added.is_named(each), added.named) == (0.0, False, ())


def test_named_are_those_above_the_bar_the_highest_first():
    added = StandOuts(0.01)
    high = math.ceil(added.bar)
    added.add(1, {"a": (0.0, high + 1.5), "b": (1.1, 0.0), "c": (0.0, high + 3.0)})
    assert [each.client_id for each in added.standing] == ["c", "a", "b"]
    assert [each.client_id for each in added.named] == ["c", "a"]


def test_a_round_that_counts():
    rows = [[0.1 * k, 0.2] for k in range(FEWEST_CLIENTS)]
    assert class_suspicions(found(rows)) == {c: tuple(row) for c, row in zip("abcd", rows, strict=True)}
    assert class_suspicions(found(rows, skill=math.nan))  # without labels the model's skill is not known
    assert list(class_suspicions(found(rows, prevented=("b",)))) == ["a", "c", "d"]


@pytest.mark.parametrize(
    "each",
    [found([[0.0]] * (FEWEST_CLIENTS - 1)), found([[0.0]] * 8, skill=LEAST_SKILL - 0.01)],
    ids=["too few clients", "a model that knows nothing"],
)
def test_a_round_that_does_not_count(each):
    assert class_suspicions(each) == {}
    added = StandOuts()
    assert added.add(1, class_suspicions(each)) == ()
    assert (added.standing, added.named) == ((), ())


@pytest.mark.parametrize("share", [0, 1, -0.1, 2])
def test_a_share_of_false_alarms_that_cannot_be(share):
    with pytest.raises(ValueError, match=r"false_alarms must be in \(0, 1\), got"):
        StandOuts(share)
