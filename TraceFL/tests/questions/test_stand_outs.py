"""Rows of stand_outs.csv, and what they come to, of rounds that are worked by hand."""

import pytest

from tracefl.provenance import StandOuts, standing_out
from tracefl.questions.stand_outs import add_round, rows_again, summarize_stand_outs
from tracefl.records.result import RoundResult
from tracefl.records.tables import STAND_OUT_COLUMNS

FALSE_ALARMS = 0.1  # a bar of 0.3 - 0.45 ln(-ln 0.9) = 1.31

# Each round takes 1 from what is said of a client: client 2 reaches 2.5 for class 1 in round 3, and falls to 0.5.
SUSPICIONS = (
    {"0": (0.5, 0.0), "2": (1.5, 2.0)},
    {},
    {"2": (0.0, 2.5), "10": (2.25, 1.0)},
    {"0": (1.25, 0.5), "2": (0.75, -1.0)},
)


@pytest.fixture(autouse=True)
def bar(monkeypatch):
    """The bars of these tests, whatever was measured since."""
    monkeypatch.setattr(standing_out, "_MODE", 0.3)
    monkeypatch.setattr(standing_out, "_SCALE", 0.45)


def results(suspicions=SUSPICIONS):
    """Return the rounds of a run in which so much was said of its clients."""
    added = StandOuts(FALSE_ALARMS)
    return [
        RoundResult({"round": n}, (), (), {}, {}, class_suspicions=each, stand_outs=add_round(added, n, each))
        for n, each in enumerate(suspicions, 1)
    ]


def test_a_row_for_each_client_of_a_round_that_counts():
    rounds = results()
    assert rounds[0].stand_outs[1] == {
        **{"round": 1, "client": "2", "toward": 1, "total": 1.0, "since": 1},
        **{"honest_share": pytest.approx(0.190, abs=1e-3), "named": False},  # 1 - exp(-exp(-0.7 / 0.45))
    }
    assert tuple(rounds[0].stand_outs[1]) == STAND_OUT_COLUMNS
    found = [
        (r["round"], r["client"], r["toward"], r["total"], r["since"], r["named"]) for e in rounds for r in e.stand_outs
    ]
    assert found == [
        (1, "0", 0, 0.0, 1, False),
        (1, "2", 1, 1.0, 1, False),
        (3, "2", 1, 2.5, 1, True),  # a round that does not count has no rows, and leaves all sums as they are
        (3, "10", 0, 1.25, 3, False),
        (4, "0", 0, 0.25, 4, False),
        (4, "2", 1, 0.5, 1, False),
    ]


def test_rows_made_again_are_those_recorded():
    rounds = results()
    recorded = [row for each in rounds for row in each.stand_outs]
    assert rows_again(rounds, FALSE_ALARMS) == recorded
    assert rows_again(rounds[:1], FALSE_ALARMS) == recorded[:2]
    others = rows_again(rounds, 0.5)  # a bar of 0.46: the same sums, others named
    assert [row["named"] for row in others] == [False, True, True, True, False, True]
    assert [row | {"named": None} for row in others] == [row | {"named": None} for row in recorded]


def test_who_stood_out_in_some_round_is_named_though_lower_later():
    rounds = results()
    named = dict(rounds[2].stand_outs[0])
    assert summarize_stand_outs(rounds) == {"rounds": 3, "named": [named], "most": named}
    assert summarize_stand_outs(rounds[:2]) == {"rounds": 1, "named": [], "most": dict(rounds[0].stand_outs[1])}


def test_who_stands_out_most_is_first_and_of_equals_the_lower_id():
    rounds = results([{"10": (3.0,), "2": (3.0,), "0": (4.0,), "1": (2.0,)}])
    found = summarize_stand_outs(rounds)
    assert [(row["client"], row["total"]) for row in found["named"]] == [("0", 3.0), ("2", 2.0), ("10", 2.0)]
    assert found["most"]["client"] == "0"


@pytest.mark.parametrize("rounds", [[], results([{}, {}])])
def test_of_a_run_in_which_nothing_counts_nothing_is_said(rounds):
    assert summarize_stand_outs(rounds) == {"rounds": 0, "named": [], "most": None}
    assert rows_again(rounds, FALSE_ALARMS) == []
