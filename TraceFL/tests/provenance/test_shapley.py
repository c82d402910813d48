"""Shapley values against every order of the clients, a closed form and the axioms; the estimate against the exact."""

import itertools
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from tests.helpers.evidence import average, cnn_evidence, evidence_of
from tests.helpers.models import clients_near
from tracefl.errors import ModelMismatchError
from tracefl.provenance import Compute, exact_shapley, sampled_shapley
from tracefl.provenance.shapley import TooManyClientsError, shapley_coefficients

P3 = {"0": 0.5, "1": 0.3, "2": 0.2}
P4 = {"0": 0.7, "1": 0.2, "2": 0.099, "3": 0.001}


def exact(evidence):
    return exact_shapley(evidence.model, evidence.record, evidence.inputs, evidence.predicted)


def sampled(evidence, permutations, seed=0):
    return sampled_shapley(
        evidence.model,
        evidence.record,
        evidence.inputs,
        evidence.predicted,
        permutations,
        seed,
        compute=Compute(batch_size=2),
    )


def centered(evidence, weights):
    """Return (M,): the centered logit of the predicted class of a model with these weights."""
    home = {n: t.clone() for n, t in evidence.model.state_dict().items()}
    evidence.model.load_state_dict(weights)
    with torch.no_grad():
        logits = evidence.model(evidence.inputs)
    evidence.model.load_state_dict(home)
    return logits[torch.arange(len(logits)), evidence.predicted] - logits.mean(dim=1)


def value(evidence, subset, noise=None):
    """Return (M,): the game's value of some clients, from its definition."""
    record = evidence.record
    weights = record.previous_global
    if subset:
        weights = average(record.clients, {k: record.client_weights[k] for k in subset})
    return centered(evidence, {n: t + (0 if noise is None else noise[n]) for n, t in weights.items()})


def literal_by_orders(evidence, noise=None):
    """Return the mean, over all orders of the clients, of what each adds when it joins."""
    orders = list(itertools.permutations(evidence.record.clients))
    sums = dict.fromkeys(evidence.record.clients, 0)
    for order in orders:
        for place, client_id in enumerate(order):
            before, after = (value(evidence, order[:count], noise) for count in (place, place + 1))
            sums[client_id] = sums[client_id] + after - before
    return torch.stack([total / len(orders) for total in sums.values()], dim=1)


def literal_by_subsets(evidence):
    """Return Shapley's sum over the subsets without each client."""
    ids = list(evidence.record.clients)
    columns = []
    for client_id in ids:
        others = [k for k in ids if k != client_id]
        total = 0
        for size in range(len(ids)):
            subsets = list(itertools.combinations(others, size))  # each as likely, and so is each size
            added = [value(evidence, (*subset, client_id)) - value(evidence, subset) for subset in subsets]
            total = total + sum(added) / len(subsets)
        columns.append(total / len(ids))
    return torch.stack(columns, dim=1)


@pytest.mark.parametrize("p", [P3, P4])
def test_agrees_with_every_order_and_every_subset(p):
    evidence = cnn_evidence(len(p), p=p)
    found = exact(evidence)
    assert_close(found.values, literal_by_orders(evidence))
    assert_close(found.values, literal_by_subsets(evidence))
    assert found.client_ids == tuple(p)
    assert (found.permutations, float(found.standard_errors.abs().max())) == (None, 0.0)


def noisy(evidence):
    record = evidence.record
    torch.manual_seed(3)
    noise = {n: 0.1 * torch.randn_like(t) if n.endswith("weight") else 0 * t for n, t in record.global_weights.items()}
    deployed = {n: t + noise[n] for n, t in record.global_weights.items()}
    return replace(evidence, record=replace(record, global_weights=deployed, before_noise=record.global_weights)), noise


def test_noise_is_no_client_s():
    evidence, noise = noisy(cnn_evidence(3, p=P3))
    assert_close(exact(evidence).values, literal_by_orders(evidence, noise))


@pytest.mark.parametrize("way", [exact, lambda evidence: sampled(evidence, 4)], ids=["exact", "sampled"])
def test_values_sum_to_what_the_round_did(way):
    for evidence in (cnn_evidence(6, scale=0.3), noisy(cnn_evidence(4))[0]):
        record = evidence.record
        start = record.previous_global
        if record.before_noise is not None:
            start = {n: t + record.global_weights[n] - record.before_noise[n] for n, t in start.items()}
        done = centered(evidence, record.global_weights) - centered(evidence, start)
        found = way(evidence)
        assert_close(found.total, done)
        assert_close(found.values.sum(dim=1), done)


def test_equal_clients_have_equal_values():
    evidence = cnn_evidence(4)
    clients = {**evidence.record.clients, "3": evidence.record.clients["0"]}
    p = dict.fromkeys(clients, 0.25)
    evidence = evidence_of(evidence.model, clients, evidence.inputs, p)
    values = exact(evidence).values
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
    expected = (own - start) / 6 + (harmonic - 1) / 6 * (own - others)
    assert_close(exact(evidence).values, expected)
    found = sampled(evidence, 400)
    assert ((found.values - expected).abs() <= 5 * found.standard_errors).all()


def test_coefficients_by_hand():
    # Two clients: phi_0 = (v(0) - v(none)) / 2 + (v(01) - v(1)) / 2.
    assert shapley_coefficients(2)[:, 0].tolist() == [-0.5, 0.5, -0.5, 0.5]
    assert shapley_coefficients(2)[:, 1].tolist() == [-0.5, -0.5, 0.5, 0.5]


def test_ten_clients_at_most():
    assert exact(cnn_evidence(10, scale=0.1)).values.shape == (3, 10)
    many = cnn_evidence(11, scale=0.1)
    with pytest.raises(TooManyClientsError, match="up to 10 clients, this round has 11"):
        exact(many)
    assert sampled(many, 4).values.shape == (3, 11)


def test_an_order_and_its_reverse_are_exact_for_two_clients():
    evidence = cnn_evidence(2, p={"0": 0.9, "1": 0.1})
    found = sampled(evidence, 4)
    assert_close(found.values, exact(evidence).values)
    assert_close(found.standard_errors, torch.zeros(3, 2, dtype=torch.float64), rtol=0, atol=1e-12)


def test_the_estimate_is_the_mean_over_its_orders():
    """By hand from the same orders: randperm's, each with its reverse, and the standard error of the pairs' means."""
    evidence = cnn_evidence(4, p=P4)
    generator = torch.Generator().manual_seed(7)
    ids, pairs = list(P4), []
    for _ in range(3):
        order = torch.randperm(4, generator=generator).tolist()
        pair = torch.zeros(3, 4, dtype=torch.float64)
        for way in (order, list(reversed(order))):
            for place, k in enumerate(way):
                before, after = (value(evidence, [ids[j] for j in way[:n]]) for n in (place, place + 1))
                pair[:, k] += (after - before) / 2
        pairs.append(pair)
    found = sampled(evidence, 6, seed=7)
    assert_close(found.values, torch.stack(pairs).mean(dim=0))
    assert_close(found.standard_errors, torch.stack(pairs).std(dim=0) / 3**0.5)
    assert found.permutations == 6
    assert not torch.equal(found.values, sampled(evidence, 6, seed=8).values)


def test_the_error_shrinks_with_the_root_of_the_orders_and_covers_the_exact_value():
    evidence = cnn_evidence(5, scale=0.4)
    truth = exact(evidence).values
    few, many = sampled(evidence, 40), sampled(evidence, 640)
    ratio = few.standard_errors.mean() / many.standard_errors.mean()
    assert 3 < ratio < 5.3  # 16 times the orders: 4
    for found in (few, many):
        assert ((found.values - truth).abs() <= 5 * found.standard_errors).all()
    # The errors are of the size that they say: over many seeds, two thirds of the values are within one.
    again = [sampled(evidence, 40, seed) for seed in range(20)]
    within = [(found.values - truth).abs() <= found.standard_errors for found in again]
    assert 0.55 < torch.stack(within).double().mean() < 0.8


@pytest.mark.parametrize("permutations", [0, 2, 5, 7])
def test_orders_come_in_pairs(permutations):
    with pytest.raises(ValueError, match=f"must be even.* at least 4, got {permutations}"):
        sampled(cnn_evidence(3), permutations)


@pytest.mark.parametrize("way", [exact, lambda evidence: sampled(evidence, 4)], ids=["exact", "sampled"])
def test_logits_that_are_not_finite(way):
    evidence = cnn_evidence(3)
    evidence.record.clients["1"]["6.bias"].fill_(torch.inf)
    with pytest.raises(ModelMismatchError, match="client '1' holds values that are not finite, in '6.bias'"):
        way(evidence)


@pytest.mark.parametrize("way", [exact, lambda evidence: sampled(evidence, 4)], ids=["exact", "sampled"])
def test_a_subset_s_logits_that_are_not_finite(way):
    """The others' running variance is negative, the average is not."""
    evidence = cnn_evidence(3)
    name = "1.running_var"
    for k, variance in {"0": 9.0, "1": -3.0, "2": -3.0}.items():
        evidence.record.clients[k][name].fill_(variance)
    record = evidence.record
    record = replace(record, global_weights=average(record.clients, record.client_weights))
    with pytest.raises(ModelMismatchError, match="the model of the subset .* gives logits that are not finite"):
        way(replace(evidence, record=record))


def test_the_model_is_given_back_as_it_was():
    evidence = cnn_evidence(3)
    evidence.model.train()
    before = {n: t.clone() for n, t in evidence.model.state_dict().items()}
    sampled(evidence, 4)
    exact(evidence)
    assert evidence.model.training
    assert_close(dict(evidence.model.state_dict()), before, rtol=0, atol=0)
