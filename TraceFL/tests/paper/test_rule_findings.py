"""Rows of suspects.csv, summarised by hand."""

import pytest

from tests.helpers.made_runs import does_not_apply, found, without_inputs
from tracefl.paper.rule_findings import over_seeds, rule_names, rule_over_seeds, run_suspects


def read(*rows):
    return run_suspects(rows)


def test_means_are_over_the_rounds_with_inputs():
    run = read(
        without_inputs(1),
        found(2, "provenance", 0.8, inputs=10, seconds=1.0, mean_rank=1.2, auroc=0.9, whole_localization=1),
        found(2, "krum", 0.0, inputs=10, seconds=0.2),
        found(3, "provenance", 1.0, inputs=30, seconds=2.0, mean_rank=1.0, auroc=1.0, whole_localization=0),
        found(3, "krum", 1.0, inputs=30, seconds=0.2),
    )
    assert (run.rounds, run.rounds_without_inputs) == (2, 1)
    assert run.chance == pytest.approx(0.1)
    means = run.rules["provenance"].means
    assert means["localization_accuracy"] == pytest.approx(0.9)  # (0.8 + 1) / 2: of rounds, whatever their inputs
    assert means["mean_rank"] == pytest.approx(1.1)
    assert means["auroc"] == pytest.approx(0.95)
    assert means["whole_localization"] == 0.5
    assert means["precision"] is None  # never measured
    assert run.rules["provenance"].seconds_per_input == pytest.approx(3 / 40)
    assert run.rules["provenance"].seconds_per_round == pytest.approx(1.5)
    assert run.rules["krum"].seconds_per_input == pytest.approx(0.4 / 40)
    assert run.rules["krum"].rounds == 2


def test_chance_counts_a_round_once_whatever_the_number_of_rules():
    more = {"chance_accuracy": 0.4}
    rows = [found(1, "provenance", 1, **more), found(1, "krum", 1, **more), found(2, "provenance", 1)]
    assert read(*rows).chance == pytest.approx((0.4 + 0.1) / 2)


def test_a_rule_that_does_not_apply_has_no_numbers_and_says_why():
    run = read(found(1, "provenance", 1.0), does_not_apply(1, "feddebug", "it needs ReLU activations"))
    feddebug = run.rules["feddebug"]
    assert not feddebug.applies
    assert (feddebug.rounds, feddebug.seconds_per_input, feddebug.note) == (0, None, "it needs ReLU activations")
    assert set(feddebug.means.values()) == {None}
    assert run.rules["provenance"].applies


def test_a_rule_that_applies_to_some_rounds_is_the_mean_of_those():
    run = read(found(1, "shapley", 0.6), does_not_apply(2, "shapley", "above 10 clients"))
    shapley = run.rules["shapley"]
    assert (shapley.applies, shapley.rounds, shapley.means["localization_accuracy"]) == (True, 1, 0.6)


def test_a_run_without_any_inputs_says_nothing_of_the_rules():
    run = read(without_inputs(1), without_inputs(2))
    assert (run.rounds, run.rounds_without_inputs, run.chance, run.rules) == (0, 2, None, {})


def test_no_rows_no_suspects():
    assert run_suspects([]) is None


def test_mean_and_standard_deviation_over_seeds():
    # 0.7, 0.8, 0.9: the squares of -0.1, 0, 0.1 add up to 0.02; over 3 - 1 seeds 0.01, whose root is 0.1
    measured = over_seeds([0.7, None, 0.8, 0.9])
    assert (measured.mean, measured.spread, measured.seeds) == (pytest.approx(0.8), pytest.approx(0.1), 3)
    assert over_seeds([0.7]).spread is None
    assert over_seeds([None]) is None


def test_a_rule_over_runs_and_the_order_of_rules():
    one = read(found(1, "krum", 0.5), found(1, "feddebug", 0.1), found(1, "chance", 0.1))
    two = read(found(1, "cosine", 0.5), found(1, "provenance", 1.0), found(1, "krum", 0.7))
    assert rule_names([one, two]) == ["provenance", "feddebug", "krum", "cosine"]
    assert rule_over_seeds([one, two], "krum").mean == pytest.approx(0.6)
    assert rule_over_seeds([one, two], "provenance").seeds == 1
    assert rule_over_seeds([one, two], "shapley") is None
