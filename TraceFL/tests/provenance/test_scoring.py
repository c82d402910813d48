from dataclasses import replace

import pytest
import torch
from scipy.stats import spearmanr
from torch.testing import assert_close

from tracefl.provenance import Attribution, score_inputs, select_inputs, select_mispredicted, spearman, summarize

# Two inputs of labels 0 and 1; three clients hold (5, 0), (2, 7), (0, 7) examples of them.
HELD = torch.tensor([[5, 2, 0], [0, 7, 7]])


def attribution(contributions):
    contributions = torch.tensor(contributions)
    return Attribution(("3", "8", "11"), contributions, contributions.softmax(dim=1), torch.tensor([0, 1]))


def test_scores_by_hand():
    found = attribution([[1.0, 2.0, 0.0], [9.0, 1.0, 2.0]])
    effects = torch.tensor([[1.0, 3.0, -1.0], [0.0, 1.0, 2.0]])
    probabilities = torch.tensor([0.75, 0.5])
    first, second = score_inputs(
        found, torch.tensor([4, 7]), torch.tensor([0, 1]), HELD > 0, HELD, effects, probabilities
    )
    # Label 0: client 8 is traced; it holds the label (2 examples), client 3 holds more (5); 2 of 3 hold it.
    assert (first.input_index, first.traced_client, first.expected_clients) == (4, "8", ("3", "8"))
    assert (first.localized, first.top_holder, first.chance) == (True, False, pytest.approx(2 / 3))
    # The removal of 8 costs most too, and both order the clients 8, 3, 11.
    assert (first.counterfactual_client, first.counterfactual_correlation) == ("8", pytest.approx(1.0))
    # Label 1: client 3 is traced and holds none; 8 and 11 hold 7 each.
    assert (second.traced_client, second.expected_clients, second.localized) == ("3", ("8", "11"), False)
    assert (second.top_holder, second.counterfactual_client) == (False, "11")
    # Ranks (2, 0, 1) against (0, 1, 2): 1 - 6 (4 + 1 + 1) / (3 * 8) = -0.5.
    assert second.counterfactual_correlation == pytest.approx(-0.5)
    assert (first.probability, second.probability) == (0.75, 0.5)
    assert first.effects == (("8", 3.0), ("3", 1.0), ("11", -1.0))  # in the order of the ranking
    assert second.exact_effects == {"3": 0.0, "11": 2.0, "8": 1.0}
    scores = summarize((first, second))
    assert scores.localization_accuracy == 0.5
    assert scores.chance_accuracy == pytest.approx(2 / 3)
    assert scores.top_holder_accuracy == 0.0
    assert scores.counterfactual_agreement == 0.5
    assert scores.counterfactual_correlation == pytest.approx(0.25)
    assert scores.inputs_traced == 2


def test_equal_holders_are_both_top():
    found = attribution([[0.0, 1.0, 0.0], [0.0, 1.0, 0.0]])
    second = score_inputs(found, torch.tensor([0, 1]), torch.tensor([0, 1]), HELD > 0, HELD, None)[1]
    assert second.top_holder
    assert second.counterfactual_client is None
    assert (second.effects, second.probability, second.exact_effects) == ((), None, {})


def test_a_verified_contribution_is_an_exact_effect():
    found = replace(attribution([[0.0, 1.0, 3.0]]), verified=torch.tensor([[False, True, True]]))
    (only,) = score_inputs(found, torch.tensor([0]), torch.tensor([0]), None, None, None)
    assert only.exact_effects == {"11": 3.0, "8": 1.0}


def test_mispredictions_know_no_holder_and_perhaps_no_culprit():
    found = attribution([[0.0, 1.0, 0.0], [2.0, 1.0, 0.0]])
    where = (torch.tensor([0, 1]), torch.tensor([1, 0]))
    faulty = torch.tensor([False, True, False]).expand(2, 3)
    first, second = score_inputs(found, *where, faulty, None, None)
    assert (first.localized, first.expected_clients, first.chance) == (True, ("8",), pytest.approx(1 / 3))
    assert (second.localized, second.top_holder) == (False, None)
    scores = summarize((first, second))
    assert (scores.localization_accuracy, scores.top_holder_accuracy) == (0.5, None)
    unknown = score_inputs(found, *where, None, None, None)
    assert (unknown[0].localized, unknown[0].expected_clients, unknown[0].chance) == (None, (), None)
    assert summarize(unknown).localization_accuracy is None
    assert summarize(unknown).inputs_traced == 2


def test_mispredicted_inputs_are_evenly_spaced():
    misled = torch.tensor([False, True, True, False, True, True, True, True])
    assert select_mispredicted(misled, 6).tolist() == [1, 2, 4, 5, 6, 7]
    assert select_mispredicted(misled, 3).tolist() == [1, 4, 6]
    assert select_mispredicted(torch.zeros(4, dtype=torch.bool), 3).tolist() == []


def test_nothing_traced_is_not_a_score():
    scores = summarize(())
    assert scores.inputs_traced == 0
    assert scores.localization_accuracy is None
    assert scores.chance_accuracy is None


def test_the_ranking_follows_contributions_where_scores_are_saturated():
    found = attribution([[500.0, 900.0, 100.0], [0.0, 0.0, 0.0]])
    assert [client for client, _ in found.ranking(0)] == ["8", "3", "11"]


def test_correct_inputs_of_held_labels_are_selected():
    predicted = torch.tensor([0, 0, 1, 2, 2, 0, 3])
    labels = torch.tensor([0, 0, 1, 2, 0, 0, 3])
    counts = torch.tensor([[4, 0, 1, 0], [0, 0, 9, 0]])  # labels 0 and 2 are held
    assert select_inputs(predicted, labels, counts, 2).tolist() == [0, 1, 3]
    assert select_inputs(predicted, labels, counts, 9).tolist() == [0, 1, 3, 5]
    assert select_inputs(predicted, labels, torch.zeros(2, 4), 9).tolist() == []


def test_spearman_agrees_with_scipy_on_ties_too():
    generator = torch.Generator().manual_seed(0)
    a = torch.randint(0, 4, (30, 6), generator=generator).double()
    b = torch.randn(30, 6, generator=generator).double()
    expected = [spearmanr(x, y).statistic for x, y in zip(a.tolist(), b.tolist(), strict=True)]
    assert_close(spearman(a, b), torch.tensor(expected, dtype=torch.float64))
    assert spearman(torch.ones(1, 4), torch.randn(1, 4)).tolist() == [0.0]
