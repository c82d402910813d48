"""What every answer must say where it is known without computing it: linear models, equal clients, needless clients."""

import itertools

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from tests.helpers.configuration import compose_settings
from tests.helpers.evidence import average, small_cnn
from tests.helpers.models import clients_near, model_and_inputs
from tracefl.conf.key_text import choices
from tracefl.provenance import (
    Method,
    RoundRecord,
    attribute_round,
    counterfactuals,
    exact_shapley,
    removal_effects,
    sampled_shapley,
)

P = {"0": 0.4, "1": 0.3, "2": 0.2, "3": 0.1}
PRESETS = [preset for preset in choices("provenance") if preset != "off"]


def method_of(preset):
    return compose_settings(f"provenance={preset}").provenance.method


def contributions(preset, model, record, inputs):
    labels = torch.zeros(3, dtype=torch.int64)
    return attribute_round(model, record, inputs, labels, method_of(preset)).contributions


class Linear:
    """A round of a linear model with 3 classes: all that is compared with comes from 15 numbers a client, by hand."""

    def __init__(self):
        torch.manual_seed(0)
        self.model = nn.Linear(4, 3).double()
        self.start = {n: t.clone() for n, t in self.model.state_dict().items()}
        self.clients = {k: {n: torch.randn_like(t) for n, t in self.start.items()} for k in P}
        self.inputs = torch.randn(3, 4, dtype=torch.float64)
        self.record = RoundRecord(1, self.clients, P, self.start, average(self.clients, P))
        self.model.load_state_dict(self.record.global_weights)
        whole = self.logits(self.record.global_weights)
        self.predicted = [max(range(3), key=lambda c: whole[i][c]) for i in range(3)]

    def logits(self, weights):
        w, b, x = weights["weight"].tolist(), weights["bias"].tolist(), self.inputs.tolist()
        return [[sum(w[c][d] * x[i][d] for d in range(4)) + b[c] for c in range(3)] for i in range(3)]

    def own(self, weights):
        """The logit of each input's predicted class under these weights."""
        of_class = [row[c] for row, c in zip(self.logits(weights), self.predicted, strict=True)]
        return torch.tensor(of_class, dtype=torch.float64)

    def centered(self, weights):
        means = torch.tensor([sum(row) / 3 for row in self.logits(weights)], dtype=torch.float64)
        return self.own(weights) - means


@pytest.fixture
def linear():
    with torch.random.fork_rng():
        return Linear()


def columns(function):
    return torch.stack([function(k) for k in P], dim=1)  # (B, K)


def test_leaving_one_out_of_a_linear_model(linear):
    """s is linear in W, and W_-k = W - p_k / (1 - p_k) (W_k - W): the effect is p_k / (1 - p_k) (s(W_k) - s(W))."""
    whole = linear.centered(linear.record.global_weights)
    expected = columns(lambda k: P[k] / (1 - P[k]) * (linear.centered(linear.clients[k]) - whole))
    found = counterfactuals(linear.model, linear.record, linear.inputs)
    assert found.predicted.tolist() == linear.predicted
    assert_close(found.centered_logits, whole)
    assert_close(found.effects, expected)
    assert_close(removal_effects(linear.model, linear.record, linear.inputs), expected)
    # And the first order is all that there is:
    assert_close(contributions("removal", linear.model, linear.record, linear.inputs), expected)


def test_the_presets_on_a_linear_model(linear):
    """T_k is the factor times the client's own logit, less that of what is subtracted from its weights."""
    whole = linear.centered(linear.record.global_weights)
    expected = {
        "artifact": columns(lambda k: linear.own(linear.clients[k])),
        "paper": columns(lambda k: P[k] * linear.own(linear.clients[k])),
        "unlike": columns(lambda k: linear.centered(linear.clients[k]) - whole),
    }
    for preset, values in expected.items():
        assert_close(contributions(preset, linear.model, linear.record, linear.inputs), values)
    # Weighted, they sum to the global model's logit.
    assert_close(expected["paper"].sum(dim=1), linear.own(linear.record.global_weights))


def test_shapley_values_of_a_linear_model(linear):
    """v(S) is the weighted mean of the members' own centered logits: no model is built, only numbers are averaged."""
    own = {k: linear.centered(weights) for k, weights in linear.clients.items()}
    start = linear.centered(linear.start)

    def value(members):
        return sum(P[k] * own[k] for k in members) / sum(P[k] for k in members) if members else start

    orders = list(itertools.permutations(P))
    joined = dict.fromkeys(P, 0)
    for order in orders:
        for place, k in enumerate(order):
            joined[k] = joined[k] + value(order[: place + 1]) - value(order[:place])
    predicted = torch.tensor(linear.predicted)
    found = exact_shapley(linear.model, linear.record, linear.inputs, predicted)
    assert_close(found.values, columns(lambda k: joined[k] / len(orders)))
    assert_close(found.total, value(tuple(P)) - start)
    estimate = sampled_shapley(linear.model, linear.record, linear.inputs, predicted, 200, seed=0)
    assert_close(estimate.total, found.total)
    assert_close(estimate.values.sum(dim=1), found.total)
    assert ((estimate.values - found.values).abs() <= 5 * estimate.standard_errors).all()


MODELS = {"cnn": small_cnn, "gpt": lambda: model_and_inputs("gpt", torch.float64)[0]}


@pytest.fixture(params=list(MODELS))
def nonlinear(request):
    """A model and three inputs."""
    with torch.random.fork_rng():
        model = MODELS[request.param]()
        if request.param == "gpt":
            return model, model_and_inputs("gpt", torch.float64)[1]
        return model, torch.randn(3, 2, 6, 6, dtype=torch.float64)


def round_of(model, clients, p):
    start = {n: t.clone() for n, t in model.state_dict().items()}
    record = RoundRecord(1, clients, p, start, average(clients, p))
    model.load_state_dict(record.global_weights)
    return record


def round_of_twins(model):
    """Clients 0 and 2 have the same weights and the same part of the average."""
    clients = clients_near(model, 3, scale=0.2)
    return round_of(model, {**clients, "2": clients["0"]}, {"0": 0.3, "1": 0.4, "2": 0.3})


@pytest.mark.filterwarnings("ignore:not traced")
@pytest.mark.parametrize("preset", PRESETS)
def test_equal_clients_are_equally_responsible(nonlinear, preset):
    model, inputs = nonlinear
    found = contributions(preset, model, round_of_twins(model), inputs)
    assert_close(found[:, 0], found[:, 2])
    assert (found[:, 0] - found[:, 1]).abs().min() > 1e-9


@pytest.mark.parametrize("verify", [1, 2, 3, 4])
def test_the_proof_does_not_part_equal_clients(verify):
    torch.manual_seed(1)
    model = small_cnn()
    clients = clients_near(model, 5, scale=0.3)
    record = round_of(model, {**clients, "4": clients["2"]}, dict.fromkeys(clients, 0.2))
    inputs = torch.randn(20, 2, 6, 6, dtype=torch.float64)
    found = attribute_round(model, record, inputs, torch.zeros(20, dtype=torch.int64), Method(verify=verify))
    assert_close(found.contributions[:, 2], found.contributions[:, 4])
    assert (found.verified[:, 2] == found.verified[:, 4]).all()
    assert not found.verified.all()


def test_equal_clients_change_as_much(nonlinear):
    model, inputs = nonlinear
    record = round_of_twins(model)
    found = counterfactuals(model, record, inputs)
    for values in (found.effects, found.probabilities_without, found.predicted_without):
        assert_close(values[:, 0], values[:, 2])
    values = exact_shapley(model, record, inputs, found.predicted).values
    assert_close(values[:, 0], values[:, 2])
    assert (values[:, 0] - values[:, 1]).abs().min() > 1e-9
    estimate = sampled_shapley(model, record, inputs, found.predicted, 60, seed=0)
    apart = estimate.values[:, 0] - estimate.values[:, 2]  # equal but for the orders that were drawn
    assert (apart.abs() <= 5 * (estimate.standard_errors[:, 0] + estimate.standard_errors[:, 2])).all()


def test_a_client_like_the_average_of_the_others_changes_nothing(nonlinear):
    """Without it the average is the same, buffers included: its effect is 0, and so is its first order."""
    model, inputs = nonlinear
    clients = clients_near(model, 3, scale=0.2)
    p = {"0": 0.4, "1": 0.25, "2": 0.35}
    clients["2"] = average(clients, {"0": 0.4, "1": 0.25})
    record = round_of(model, clients, p)
    found = counterfactuals(model, record, inputs)
    nothing = torch.zeros(3, dtype=torch.float64)
    assert_close(found.effects[:, 2], nothing, rtol=0, atol=1e-12)
    assert_close(found.probabilities_without[:, 2], found.probabilities)
    assert not found.changed[:, 2].any()
    assert_close(removal_effects(model, record, inputs)[:, 2], nothing, rtol=0, atol=1e-12)
    assert found.effects[:, :2].abs().min() > 1e-6


@pytest.mark.filterwarnings("ignore:not traced")
def test_a_client_like_the_average_of_the_others_contributes_nothing(nonlinear):
    model, inputs = nonlinear
    clients = clients_near(model, 3, scale=0.2)
    clients["2"] = average(clients, {"0": 0.4, "1": 0.25})
    record = round_of(model, clients, {"0": 0.4, "1": 0.25, "2": 0.35})
    found = contributions("removal", model, record, inputs)
    assert_close(found[:, 2], torch.zeros(3, dtype=torch.float64), rtol=0, atol=1e-12)
    assert found[:, :2].abs().min() > 1e-6
