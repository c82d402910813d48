"""FLTracer, against a slow reading on whole vectors."""

from dataclasses import replace
from statistics import median

import pytest
import torch
from torch.nn.utils import parameters_to_vector
from torch.testing import assert_close

from tests.helpers.evidence import cnn_evidence, with_history
from tests.helpers.federations import flipping_federation
from tracefl.questions.baselines import RULES, NotApplicableError
from tracefl.questions.baselines.fltracer import modified_z


def read_slowly(evidence, record):
    """A round's largest z-score of each client."""
    rows = []
    for weights in (record.previous_global, *record.clients.values()):
        evidence.model.load_state_dict(weights)
        rows.append(parameters_to_vector(evidence.model.parameters()).detach().clone())
    evidence.model.load_state_dict(evidence.record.global_weights)
    vectors = torch.stack(rows[1:]) - rows[0]  # (K, P)
    ranks = (vectors[:, None] > vectors[None]).sum(dim=1).double()
    ranks += ((vectors[:, None] == vectors[None]).sum(dim=1) - 1) / 2
    scores = []
    for feature in (vectors.sign(), ranks, vectors[:, -39:]):  # the last layer has 3 * 12 weights and 3 biases
        centered = feature - feature.mean(dim=0)
        u, s, _ = torch.linalg.svd(centered, full_matrices=False)
        component = (u[:, 0] * s[0]).tolist()
        middle = median(component)
        spread = median(abs(x - middle) for x in component)
        scores.append([0.6745 * abs(x - middle) / spread for x in component])
    return [max(of_client) for of_client in zip(*scores, strict=True)]


@pytest.mark.parametrize("block_numbers", [2**19, 7])
def test_it_is_the_mean_of_slow_readings_of_the_rounds(block_numbers, monkeypatch):
    monkeypatch.setattr("tracefl.provenance.updates._BLOCK", block_numbers)
    evidence = with_history(cnn_evidence(5), rounds=2)
    rounds = torch.tensor([read_slowly(evidence, record) for record in evidence.rounds], dtype=torch.float64)
    assert_close(RULES["fltracer"](evidence), rounds.mean(dim=0))


def test_a_client_is_judged_by_the_rounds_in_which_it_took_part():
    evidence = with_history(cnn_evidence(5), rounds=1)
    earlier = evidence.history[0]()
    without = {k: weights for k, weights in earlier.clients.items() if k != "2"}
    evidence = replace(evidence, history=(lambda: replace(earlier, clients=without),))
    alone = RULES["fltracer"](replace(evidence, history=()))
    both = RULES["fltracer"](evidence)
    assert both[2] == alone[2]
    assert (both != alone).sum() == 4


def test_modified_z_by_hand():
    # Median 3, deviations -2, -1, 0, 1, 5: their median 1. Most numbers equal: the mean deviation, 1, in its place.
    assert_close(modified_z(torch.tensor([1.0, 2, 3, 4, 8])), 0.6745 * torch.tensor([-2.0, -1, 0, 1, 5]))
    assert_close(modified_z(torch.tensor([2.0, 2, 2, 6])), torch.tensor([0.0, 0, 0, 4]) / 1.253314)
    assert modified_z(torch.ones(3)).tolist() == [0, 0, 0]


def test_it_finds_the_client_that_flips():
    assert int(RULES["fltracer"](flipping_federation(flip=1)).argmax()) == 7


def test_two_clients_have_no_median_to_differ_from():
    with pytest.raises(NotApplicableError, match="at least 3, round 1 has 2"):
        RULES["fltracer"](cnn_evidence(2))
