"""Which clients are drawn: the probabilities by hand and by property, and that the draw follows them."""

import itertools
import math
from collections import Counter

import pytest

from tests.helpers.ledger_runs import made_results
from tests.helpers.runs import LIGHT_MODEL, run
from tracefl.common.seeds import derive_seed
from tracefl.federation.selection import Selection, draw_clients, selection_probabilities
from tracefl.questions.ledger import ContributionLedger
from tracefl.records.store import RoundStore

USEFULNESS = {"0": 0.5, "1": -2.0, "2": None, "3": 1.5, "4": 0.0, "5": None}


def test_probabilities_by_hand():
    # Seen are 3 and 1: mean 2, standard deviation 1, so z is 1 and -1, and 0 for the client never seen.
    found = selection_probabilities({"a": 3.0, "b": 1.0, "c": None}, temperature=0.5, exploration=0.3)
    total = math.e**2 + math.e**-2 + 1
    assert found == pytest.approx(
        {"a": 0.7 * math.e**2 / total + 0.1, "b": 0.7 * math.e**-2 / total + 0.1, "c": 0.7 / total + 0.1}
    )


@pytest.mark.parametrize(("temperature", "exploration"), [*itertools.product((1e-9, 0.1, 1.0, 1e9), (1e-6, 0.2, 1.0))])
def test_probabilities_are_such(temperature, exploration):
    found = selection_probabilities(USEFULNESS, temperature, exploration)
    assert sum(found.values()) == pytest.approx(1)
    assert min(found.values()) >= exploration / len(USEFULNESS) * (1 - 1e-12)  # every client has a chance
    by_use = sorted((k for k, u in USEFULNESS.items() if u is not None), key=USEFULNESS.get)
    assert [found[k] for k in by_use] == sorted(found[k] for k in by_use)
    assert found["2"] == found["5"]


def test_exploration_alone_is_even():
    assert set(selection_probabilities(USEFULNESS, 1.0, 1.0).values()) == {1 / 6}


@pytest.mark.parametrize(
    "usefulness", [dict.fromkeys("abc"), {"a": 0.7, "b": None, "c": None}, {"a": 1.0, "b": 1.0, "c": 1.0}]
)
def test_clients_that_nothing_tells_apart_are_equally_likely(usefulness):
    assert selection_probabilities(usefulness, 0.1, 0.01) == pytest.approx(dict.fromkeys("abc", 1 / 3))


def test_neither_the_unit_nor_what_all_share_matters():
    moved = {k: None if u is None else 40 * u + 7 for k, u in USEFULNESS.items()}
    assert selection_probabilities(moved, 1.0, 0.2) == pytest.approx(selection_probabilities(USEFULNESS, 1.0, 0.2))


def test_a_client_that_has_diverged_counts_as_never_seen():
    found = selection_probabilities({"a": 3.0, "b": 1.0, "c": math.nan, "d": math.inf}, 0.5, 0.3)
    unseen = selection_probabilities({"a": 3.0, "b": 1.0, "c": None, "d": None}, 0.5, 0.3)
    assert found == unseen


def test_the_draw_is_seeded_and_without_replacement():
    probabilities = selection_probabilities(USEFULNESS, 0.01, 1e-6)
    for seed in range(50):
        drawn = draw_clients(probabilities, 4, seed)
        assert len(set(drawn)) == 4
        assert set(drawn) <= set(USEFULNESS)
        assert drawn == draw_clients(probabilities, 4, seed)
        assert drawn == draw_clients(probabilities, 6, seed)[:4]
    assert len({draw_clients(probabilities, 4, seed) for seed in range(50)}) > 1
    assert set(draw_clients(probabilities, 6, 0)) == set(USEFULNESS)


def test_the_draw_follows_the_probabilities_one_after_another():
    p = {"a": 0.6, "b": 0.3, "c": 0.1}
    draws = 20_000
    counted = Counter(draw_clients(p, 2, seed) for seed in range(draws))
    for first, second in itertools.permutations(p, 2):
        expected = p[first] * p[second] / (1 - p[first])
        assert counted[first, second] / draws == pytest.approx(expected, abs=4 * math.sqrt(expected / draws))


def test_a_client_never_seen_is_tried():
    usefulness = {str(k): float(k) for k in range(19)} | {"19": None}
    probabilities = selection_probabilities(usefulness, 1.0, 0.2)
    times = sum("19" in draw_clients(probabilities, 5, seed) for seed in range(400))
    assert times > 400 * 0.2 * 5 / 20  # at least its part of the exploration


def test_what_is_drawn_follows_the_rounds_that_are_added():
    ids = [str(k) for k in range(6)]
    ledger = ContributionLedger()
    selection = Selection(ledger, 1.0, 0.2)
    even = dict.fromkeys(ids, 1 / 6)
    assert selection.draw(ids, 3, seed=5) == draw_clients(even, 3, 5)
    for result in made_results():
        ledger.add_round(result)
    usefulness = {k: ledger.usefulness(k) for k in ids}
    assert usefulness["5"] is None
    assert selection.draw(ids, 3, seed=5) == draw_clients(selection_probabilities(usefulness, 1.0, 0.2), 3, 5)


def test_the_weight_of_wrong_predictions_counts():
    ids = [str(k) for k in range(6)]
    ledger = ContributionLedger(made_results())
    usefulness = {k: ledger.usefulness(k, 3.0) for k in ids}
    probabilities = selection_probabilities(usefulness, 1.0, 0.2)
    assert Selection(ledger, 1.0, 0.2, 3.0).draw(ids, 3, seed=5) == draw_clients(probabilities, 3, 5)
    assert probabilities != selection_probabilities({k: ledger.usefulness(k) for k in ids}, 1.0, 0.2)


@pytest.mark.slow
def test_a_run_draws_by_what_it_recorded_of_the_rounds_before(tmp_path):
    own = ("strategy=provenance_selection", "strategy.temperature=0.2", "strategy.exploration=0.05")
    spread = ("num_clients=8", "num_rounds=4", "dirichlet_alpha=100", "provenance.every=2")
    folder = run(tmp_path, *LIGHT_MODEL, *own, *spread, "store=none")
    results = list(RoundStore(folder / "rounds").results())
    ids = [str(k) for k in range(8)]
    usefulness = []
    for number, result in enumerate(results, start=1):
        ledger = ContributionLedger(results[: number - 1])
        expected = Selection(ledger, 0.2, 0.05).draw(ids, 3, derive_seed(42, "sample", number))
        assert {*result.client_weights, *result.dropped} == set(expected)
        usefulness.append([ledger.usefulness(k) for k in ids])
    assert [r.row["inputs_traced"] > 0 for r in results] == [False, True, False, True]
    assert set(usefulness[0]) == set(usefulness[1]) == {None}  # nothing is traced before the second round
    assert usefulness[2] == usefulness[3] != usefulness[1]
