"""FLDetector, against the Hessian's estimate written out as BFGS updates of a whole matrix."""

from dataclasses import replace

import pytest
import torch
from torch.nn.utils import parameters_to_vector
from torch.testing import assert_close

from tests.helpers.evidence import cnn_evidence, with_history
from tests.helpers.federations import flipping_federation
from tracefl.questions.baselines import RULES, NotApplicableError


def vector_of(evidence, weights):
    evidence.model.load_state_dict(weights)
    vector = parameters_to_vector(evidence.model.parameters()).detach().clone()
    evidence.model.load_state_dict(evidence.record.global_weights)
    return vector


def read_slowly(evidence):
    rounds = list(evidence.rounds)
    w = [vector_of(evidence, record.previous_global) for record in rounds]
    g = [{k: vector_of(evidence, sent) - w[t] for k, sent in record.clients.items()} for t, record in enumerate(rounds)]
    mean = [sum(rounds[t].client_weights[k] * update for k, update in g[t].items()) for t in range(len(rounds))]
    scores = []
    for t in range(2, len(rounds)):
        pairs = [(w[j] - w[j - 1], mean[j] - mean[j - 1]) for j in range(1, t)]
        s, y = pairs[-1]
        hessian = (y @ s) / (s @ s) * torch.eye(len(s), dtype=s.dtype)
        for s, y in pairs:
            hs = hessian @ s
            hessian = hessian - torch.outer(hs, hs) / (s @ hs) + torch.outer(y, y) / (y @ s)
        foretold = {k: update + hessian @ (w[t] - w[t - 1]) for k, update in g[t - 1].items()}
        distances = torch.stack([(foretold[k] - g[t][k]).norm() for k in g[t]])
        scores.append(distances / distances.sum())
    return sum(scores) / len(scores)


@pytest.mark.parametrize("block_numbers", [2**19, 40])
@pytest.mark.parametrize("rounds", [2, 4])
def test_it_agrees_with_a_slow_reading(rounds, block_numbers, monkeypatch):
    monkeypatch.setattr("tracefl.provenance.updates._BLOCK", block_numbers)
    evidence = with_history(cnn_evidence(5), rounds)
    assert_close(RULES["fldetector"](evidence), read_slowly(evidence), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("from_round", [1, 4])
def test_it_finds_the_client_that_flips(from_round):
    assert int(RULES["fldetector"](flipping_federation(from_round=from_round)).argmax()) == 7


def test_it_needs_two_earlier_rounds_of_the_same_clients():
    evidence = with_history(cnn_evidence(4), rounds=2)
    with pytest.raises(NotApplicableError, match="fldetector needs the weights of the 2 rounds before"):
        RULES["fldetector"](replace(evidence, history=evidence.history[1:]))
    earlier = evidence.history[1]()
    absent = replace(earlier, clients={k: v for k, v in earlier.clients.items() if k != "3"})
    with pytest.raises(NotApplicableError, match="client 3 did not take part in round 2"):
        RULES["fldetector"](replace(evidence, history=(evidence.history[0], lambda: absent)))


def test_a_global_model_that_stands_still_has_no_hessian():
    evidence = with_history(cnn_evidence(4), rounds=2)
    first, second = (read() for read in evidence.history)
    still = replace(second, previous_global=first.previous_global)
    with pytest.raises(NotApplicableError, match="did not move"):
        RULES["fldetector"](replace(evidence, history=(lambda: first, lambda: still)))
