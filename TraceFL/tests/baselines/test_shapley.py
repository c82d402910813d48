"""Shapley values against every order of the clients, a closed form, the axioms; removal as the library's own."""

import itertools
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from tests.baselines.conftest import average, cnn_evidence, evidence_of
from tests.provenance.conftest import clients_near
from tracefl.baselines import RULES, NotApplicableError
from tracefl.provenance import removal_effects
from tracefl.provenance.shapley import shapley_coefficients

P3 = {"0": 0.5, "1": 0.3, "2": 0.2}
P4 = {"0": 0.7, "1": 0.2, "2": 0.099, "3": 0.001}

shapley, removal = RULES["shapley"], RULES["removal"]


def centered(evidence, weights):
    """Return (M,): the centered logit of the predicted class of a model with these weights."""
    home = {n: t.clone() for n, t in evidence.model.state_dict().items()}
    evidence.model.load_state_dict(weights)
    with torch.no_grad():
        logits = evidence.model(evidence.inputs)
    evidence.model.load_state_dict(home)
    return logits[torch.arange(len(logits)), evidence.predicted] - logits.mean(dim=1)


def literal_shapley(evidence, noise=None):
    """Return the mean, over all orders of the clients, of what each adds when it joins."""
    record = evidence.record
    noise = noise or dict.fromkeys(record.global_weights, 0)

    def value(subset):
        if not subset:
            weights = record.previous_global
        else:
            weights = average(record.clients, {k: record.client_weights[k] for k in subset})
        return centered(evidence, {n: t + noise[n] for n, t in weights.items()})

    orders = list(itertools.permutations(record.clients))
    sums = dict.fromkeys(record.clients, 0)
    for order in orders:
        for place, client_id in enumerate(order):
            sums[client_id] = sums[client_id] + value(order[: place + 1]) - value(order[:place])
    return torch.stack([total / len(orders) for total in sums.values()], dim=1)


@pytest.mark.parametrize("p", [P3, P4])
def test_agrees_with_every_order_of_the_clients(p):
    evidence = cnn_evidence(len(p), p=p)
    assert_close(shapley(evidence), literal_shapley(evidence))


def test_noise_is_no_client_s():
    evidence = cnn_evidence(3, p=P3)
    record = evidence.record
    torch.manual_seed(3)
    noise = {n: 0.1 * torch.randn_like(t) if n.endswith("weight") else 0 * t for n, t in record.global_weights.items()}
    deployed = {n: t + noise[n] for n, t in record.global_weights.items()}
    noisy = replace(evidence, record=replace(record, global_weights=deployed, before_noise=record.global_weights))
    assert_close(shapley(noisy), literal_shapley(noisy, noise))


def test_values_sum_to_what_the_round_did():
    evidence = cnn_evidence(6, scale=0.3)
    done = centered(evidence, evidence.record.global_weights) - centered(evidence, evidence.record.previous_global)
    assert_close(shapley(evidence).sum(dim=1), done)


def test_equal_clients_have_equal_values():
    evidence = cnn_evidence(4)
    clients = {**evidence.record.clients, "3": evidence.record.clients["0"]}
    p = dict.fromkeys(clients, 0.25)
    evidence = evidence_of(evidence.model, clients, evidence.inputs, p)
    values = shapley(evidence)
    assert_close(values[:, 0], values[:, 3])
    assert (values[:, 0] - values[:, 1]).abs().min() > 1e-6


def test_closed_form_on_a_linear_model():
    """Equal p_k and a logit linear in the weights, so v(S) is the mean of the members' a_k over S, and v(none) = a_0.

    Client k joins as number s + 1 with the mean m of s others, in expectation the mean of all others, and adds
    (a_k - m) / (s + 1): with H = 1 + 1/2 + ... + 1/K,
    phi_k = (a_k - a_0) / K + (H - 1) / K * (a_k - mean of the others).
    """
    torch.manual_seed(0)
    model = nn.Linear(5, 3).double()
    clients = clients_near(model, 6, scale=1.0)
    inputs = torch.randn(4, 5, dtype=torch.float64)
    evidence = evidence_of(model, clients, inputs)
    own = torch.stack([centered(evidence, weights) for weights in clients.values()], dim=1)  # (M, K)
    start = centered(evidence, evidence.record.previous_global)[:, None]
    others = (own.sum(dim=1, keepdim=True) - own) / 5
    harmonic = sum(1 / n for n in range(1, 7))
    assert_close(shapley(evidence), (own - start) / 6 + (harmonic - 1) / 6 * (own - others))


def test_coefficients_by_hand():
    # Two clients: phi_0 = (v(0) - v(none)) / 2 + (v(01) - v(1)) / 2.
    assert shapley_coefficients(2)[:, 0].tolist() == [-0.5, 0.5, -0.5, 0.5]
    assert shapley_coefficients(2)[:, 1].tolist() == [-0.5, -0.5, 0.5, 0.5]


def test_ten_clients_at_most():
    assert shapley(cnn_evidence(10, scale=0.1)).shape == (3, 10)
    with pytest.raises(NotApplicableError, match="up to 10 clients, this round has 11"):
        shapley(cnn_evidence(11))


def test_removal_is_the_library_s_own():
    evidence = cnn_evidence(4)
    assert torch.equal(removal(evidence), removal_effects(evidence.model, evidence.record, evidence.inputs))
    with pytest.raises(NotApplicableError, match="at least 2 clients"):
        removal(cnn_evidence(1))


@pytest.mark.parametrize("rule", ["shapley", "removal", "own_logit"])
def test_logits_that_are_not_finite(rule):
    evidence = cnn_evidence(3)
    evidence.record.clients["1"]["6.bias"].fill_(torch.inf)
    with pytest.raises(NotApplicableError, match="not finite"):
        RULES[rule](evidence)
