"""FLForensics: influences against autograd, clusters by hand."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.utils import parameters_to_vector
from torch.testing import assert_close

from tests.helpers.evidence import cnn_evidence, evidence_of, with_history
from tests.helpers.federations import flipping_federation
from tests.helpers.models import clients_near, model_and_inputs
from tracefl.questions.baselines import RULES, Evidence, NotApplicableError
from tracefl.questions.baselines.flforensics import flforensics, found_with, noise_like


def influence_slowly(evidence, x, label):
    """Each client's influence on one input, by the loss's whole gradient in every round."""
    found = dict.fromkeys(evidence.record.clients, 0.0)
    for record in evidence.rounds:
        model = copy.deepcopy(evidence.model)
        model.load_state_dict(record.previous_global)
        start = parameters_to_vector(model.parameters()).detach().clone()
        nn.functional.cross_entropy(model(x[None]), label[None]).backward()
        gradient = torch.cat([p.grad.reshape(-1) for p in model.parameters()])
        for client in found.keys() & record.clients.keys():
            model.load_state_dict(record.clients[client])
            update = parameters_to_vector(model.parameters()).detach() - start
            found[client] -= float(gradient @ update / update.norm()) / len(record.clients)
    return torch.tensor(list(found.values()), dtype=torch.float64)


@pytest.mark.parametrize("rounds", [0, 2])
def test_it_agrees_with_a_slow_reading(rounds):
    evidence = with_history(cnn_evidence(6), rounds)
    if rounds:  # in which a client may be absent
        earlier = evidence.history[0]()
        absent = replace(earlier, clients={k: v for k, v in earlier.clients.items() if k != "2"})
        evidence = replace(evidence, history=(lambda: absent, *evidence.history[1:]))
    noise, expected = noise_like(evidence, 3), []
    for x, label in zip(evidence.inputs, evidence.predicted, strict=True):
        s = influence_slowly(evidence, x, label)
        controls = [influence_slowly(evidence, one, label) for one in noise]
        votes = sum(found_with(s, control) for control in controls)
        margins = [s / (s.max() - s.min()) - control / (control.max() - control.min()) for control in controls]
        expected.append(votes + 1 / (1 + (-sum(margins) / 3).exp()))
    assert_close(flforensics(evidence, num_noises=3), torch.stack(expected))


HONEST = [(-1.0, 0.1), (-1.1, 0.0), (-1.05, -0.1), (-0.95, 0.05), (-1.02, -0.05), (-0.98, 0.08)]


def found(*pairs):
    s, control = torch.tensor(pairs, dtype=torch.float64).t()
    return [k for k, one in enumerate(found_with(s, control).tolist()) if one]


def test_one_small_cluster_of_positive_influence_is_the_attackers():
    assert found(*HONEST, (5.0, 0.1), (5.1, 0.0)) == [6, 7]
    assert found(*HONEST, (-5.0, 0.1), (-5.1, 0.0)) == []  # their influence is negative
    assert found(*HONEST, (5.0, 0.1)) == [6]  # in no cluster, like nobody else


def test_of_two_clusters_the_one_with_less_influence_on_noise_is_the_attackers():
    holders = [(5.0, 8.0), (5.1, 8.1)]  # of many examples of the class
    assert found(*HONEST, *holders, (5.0, 0.1), (5.1, 0.0)) == [8, 9]


def test_noise_is_within_the_inputs_range():
    evidence = cnn_evidence(4)
    noise = noise_like(evidence, 5)
    assert noise.shape == (5, 2, 6, 6)
    assert evidence.inputs.min() <= noise.min() < noise.max() <= evidence.inputs.max()
    assert not torch.equal(noise, noise_like(replace(evidence, seed=1), 5))


def test_noise_of_texts_is_drawn_tokens():
    model, inputs = model_and_inputs("bert")
    evidence = Evidence(cnn_evidence(4).record, model, inputs, torch.tensor([0, 1, 2]), seed=0)
    noise = noise_like(evidence, 5)
    assert noise["input_ids"].shape == noise["attention_mask"].shape == (5, 12)
    assert 0 <= int(noise["input_ids"].min()) < int(noise["input_ids"].max()) < 50
    assert noise["attention_mask"].all()
    strange = replace(evidence, inputs={**inputs, "bbox": inputs["input_ids"]})
    with pytest.raises(NotApplicableError, match="takes other inputs"):
        noise_like(strange, 5)


@pytest.mark.parametrize("from_round", [1, 4])
def test_it_finds_the_client_that_flips(from_round):
    suspicions = RULES["flforensics"](flipping_federation(flip=1, from_round=from_round))
    assert int(suspicions.sum(dim=0).argmax()) == 7


def test_three_clients_are_not_clustered():
    with pytest.raises(NotApplicableError, match="needs at least 4, this round has 3"):
        RULES["flforensics"](cnn_evidence(3))


def test_a_layer_without_forward_derivative_is_said():
    class Odd(torch.autograd.Function):
        @staticmethod
        def forward(x):
            return x.clone()

        @staticmethod
        def setup_context(ctx, inputs, output):
            pass

    class Layer(nn.Module):
        def forward(self, x):
            return Odd.apply(x)

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 3), Layer()).double()
    evidence = evidence_of(model, clients_near(model, 4), torch.ones(1, 2, dtype=torch.float64))
    with pytest.raises(NotApplicableError, match="has no forward derivative"):
        RULES["flforensics"](evidence)
