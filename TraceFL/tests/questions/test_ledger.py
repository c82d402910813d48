"""The account of made rounds: by hand, against a slow reading of provenance.csv's rows, and replayed from the disk."""

import random
from dataclasses import replace

import pytest
import torch

from tests.helpers.ledger_runs import made_results
from tracefl.provenance import RoundRecord, TracedInput
from tracefl.questions.ledger import ContributionLedger, Tally
from tracefl.records.result import RoundResult
from tracefl.records.store import RoundStore
from tracefl.records.tables import provenance_rows


def traced(label, predicted, contributions):
    ranking = tuple((client, 0.5) for client, _ in contributions)
    return TracedInput(
        *(0, label, predicted, contributions[0][0], (), None, 0.5, ranking, None, None, None, None), contributions
    )


def test_the_account_by_hand():
    first = RoundResult(
        {"round": 1},
        (
            traced(2, 2, (("a", 3.0), ("b", -1.0))),
            traced(2, 2, (("a", 1.0), ("b", 0.5))),
            traced(0, 2, (("b", 4.0), ("a", -2.0))),
        ),
        (),
        {"a": 0.5, "b": 0.5},
        {"c": "a training loss of nan"},
        refused=("c",),
        capped={"b": "its 1000 examples count as 30"},
    )
    second = RoundResult({"round": 2}, (traced(1, 1, (("b", 2.0), ("c", 0.25))),), (), {"b": 0.9, "c": 0.1}, {})
    third = RoundResult({"round": 3}, (), (), {"a": 1.0}, {})  # not traced
    ledger = ContributionLedger([first, second, third])
    assert ledger.rounds_of == {"a": [1, 3], "b": [1, 2], "c": [2]}
    assert ledger.dropped == ledger.refused == {"c": [1]}
    assert ledger.capped == {"b": [1]}
    assert (ledger.rounds, ledger.traced_rounds) == (3, [1, 2])
    assert (ledger.correct_predictions, ledger.wrong_predictions) == (3, 1)
    assert ledger.tally("a", True) == Tally(2, 4.0)
    assert ledger.tally("b", True) == Tally(3, 1.5)
    assert ledger.by_class("b", True) == {2: Tally(2, -0.5), 1: Tally(1, 2.0)}
    assert ledger.by_class("b", False) == {2: Tally(1, 4.0)}  # by the class that was predicted, not the true one
    assert ledger.usefulness("a") == 2.0 - 0.5 * -2.0
    assert ledger.usefulness("b") == 0.5 - 0.5 * 4.0
    assert ledger.usefulness("b", wrong_weight=1.0) == 0.5 - 4.0
    assert ledger.usefulness("c") == 0.25  # no wrong prediction in its rounds: that mean counts as 0
    assert ledger.usefulness("d") is None
    assert ledger.tally("c", False).mean is None


def test_predictions_that_nobody_carries_are_counted():
    with_effects = (replace(traced(2, 2, (("a", 3.0), ("b", -1.0))), effects=(("a", -0.5), ("b", -1.0))),)
    ledger = ContributionLedger([RoundResult({"round": 1}, with_effects * 2, (), {"a": 0.5, "b": 0.5}, {})])
    assert (ledger.nobodys_predictions, ledger.correct_predictions) == (2, 2)
    assert ledger.tally("a", True) == Tally(2, 6.0)


def test_the_account_against_a_slow_reading_of_the_table():
    results = made_results()
    ledger = ContributionLedger(results)
    rows = [{k: str(v) for k, v in row.items()} for r in results for row in provenance_rows(r.server_round, r.traced)]
    for client in map(str, range(6)):
        for correct in (True, False):
            for wanted in (None, 0, 1, 2):
                found = []
                for row in rows:
                    if (row["label"] == row["predicted"]) != correct or wanted not in (None, int(row["predicted"])):
                        continue
                    found += [float(c.split(":")[1]) for c in row["contributions"].split() if c.split(":")[0] == client]
                tally = (
                    ledger.tally(client, correct)
                    if wanted is None
                    else ledger.by_class(client, correct).get(wanted, Tally())
                )
                assert tally.predictions == len(found)
                assert tally.total == pytest.approx(sum(found), abs=1e-4)  # the table has six digits
                if found:
                    assert tally.mean == pytest.approx(sum(found) / len(found), abs=1e-5)


def test_totals_are_those_of_the_classes():
    ledger = ContributionLedger(made_results())
    for client in ledger.rounds_of:
        for correct in (True, False):
            classes = ledger.by_class(client, correct).values()
            assert sum(t.predictions for t in classes) == ledger.tally(client, correct).predictions
            assert sum(t.total for t in classes) == pytest.approx(ledger.tally(client, correct).total)


def test_a_run_read_back_gives_the_same_numbers_to_the_last_bit(tmp_path):
    store, live = RoundStore(tmp_path), ContributionLedger()
    weights = {"w": torch.zeros(1)}
    for result in made_results():
        live.add_round(result)
        clients = dict.fromkeys(result.client_weights, weights)
        store.commit(result, RoundRecord(result.server_round, clients, result.client_weights, weights, weights))
    store.finish()
    replayed = ContributionLedger(store.results())
    for client in map(str, range(6)):
        assert replayed.usefulness(client) == live.usefulness(client)
        assert replayed.by_class(client, True) == live.by_class(client, True)
        assert replayed.tally(client, False) == live.tally(client, False)


def test_shuffled_inputs_change_nothing_but_the_rounding():
    results = made_results()
    draw = random.Random(1)
    shuffled = [
        RoundResult(r.row, tuple(draw.sample(r.traced, len(r.traced))), (), r.client_weights, {}) for r in results
    ]
    one, other = ContributionLedger(results), ContributionLedger(shuffled)
    for client in one.rounds_of:
        assert other.usefulness(client) == pytest.approx(one.usefulness(client))
