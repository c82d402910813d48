import dataclasses

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from tests.helpers.models import clients_near, model_and_inputs
from tracefl.errors import ModelMismatchError
from tracefl.provenance import Method, RoundRecord, attribute_round, removal_effects, weights_without

P = {"0": 0.5, "1": 0.3, "2": 0.2}


def fedavg(clients, p):
    return {
        n: sum(p[k] * c[n] for k, c in clients.items()) if t.is_floating_point() else t for n, t in clients["0"].items()
    }


def round_of(model, scale=0.05):
    clients = clients_near(model, scale=scale)
    previous = {n: t.clone() for n, t in model.state_dict().items()}
    record = RoundRecord(1, clients, P, previous, fedavg(clients, P))
    model.load_state_dict(record.global_weights)
    return record


def test_the_model_without_a_client_is_the_average_of_the_others():
    model, _ = model_and_inputs("resnet18", torch.float64)
    record = round_of(model)
    others = {"0": 0.5 / 0.8, "1": 0.3 / 0.8, "2": 0.0}
    assert_close(weights_without(record, "2"), fedavg(record.clients, others))


def test_effects_agree_with_building_each_model(family):
    model, inputs = model_and_inputs(family, torch.float64)
    record = round_of(model)
    arguments = inputs if isinstance(inputs, dict) else {"x": inputs}

    def centered(weights, classes=None):
        model.load_state_dict(weights)
        with torch.no_grad():
            out = model(**arguments)
        logits = getattr(out, "logits", out)
        classes = logits.argmax(dim=1) if classes is None else classes
        return logits.gather(1, classes[:, None])[:, 0] - logits.mean(dim=1), classes

    whole, classes = centered(record.global_weights)
    expected = []
    for left in record.clients:
        rest = 1 - P[left]
        weights = fedavg(record.clients, {k: 0 if k == left else p / rest for k, p in P.items()})
        expected.append(whole - centered(weights, classes)[0])
    model.load_state_dict(record.global_weights)
    assert_close(removal_effects(model, record, inputs), torch.stack(expected, dim=1).double())


def test_removal_is_first_order_exact_on_a_linear_model():
    """Logits linear in the weights: the preset removal is the exact effect, and a client like the average has none."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 4)).double()
    record = round_of(model, scale=1.0)
    inputs = torch.randn(5, 6, dtype=torch.float64)
    found = attribute_round(model, record, inputs, torch.zeros(5, dtype=torch.int64), Method(verify=0))
    assert_close(found.contributions, removal_effects(model, record, inputs))
    same = dict.fromkeys(record.clients, record.global_weights)
    still = RoundRecord(1, same, P, record.previous_global, record.global_weights)
    assert_close(removal_effects(model, still, inputs), torch.zeros(5, 3).double())


@pytest.mark.filterwarnings("error:not traced")
def test_removal_is_the_derivative_of_the_exact_effect(family):
    """Where clients differ by little, and every parameter and running statistic is traced, the two agree."""
    model, inputs = model_and_inputs(family, torch.float64)
    record = round_of(model, scale=1e-6)
    model.load_state_dict(record.global_weights)
    method = Method(also=("batch_norm", "embedding"), verify=0)
    found = attribute_round(model, record, inputs, torch.zeros(3, dtype=torch.int64), method).contributions
    exact = removal_effects(model, record, inputs)
    assert_close(found, exact, rtol=1e-3, atol=1e-3 * float(exact.abs().max()))


def test_a_dominant_client_can_be_taken_out():
    """p = 0.999 and variances nine orders apart: what is left of a float32 average would be rounding, here negative."""
    p = {"big": 0.999, "small": 0.001}
    clients = {"big": {"v": torch.tensor([1e3])}, "small": {"v": torch.tensor([1e-6])}}
    average = {"v": sum(p[k] * c["v"] for k, c in clients.items())}
    record = RoundRecord(1, clients, p, average, average)
    assert_close(weights_without(record, "big")["v"], torch.tensor([1e-6]), rtol=1e-4, atol=0)


def test_logits_that_are_not_finite_are_refused():
    model = nn.Sequential(nn.Linear(2, 2))
    good = {n: t.clone() for n, t in model.state_dict().items()}
    bad = {n: t * torch.inf for n, t in good.items()}
    record = RoundRecord(1, {"a": good, "b": bad}, {"a": 0.5, "b": 0.5}, good, good)
    with pytest.raises(ModelMismatchError, match="client 'b' holds values that are not finite, in '0.weight'"):
        removal_effects(model, record, torch.ones(1, 2))
    with pytest.raises(ModelMismatchError, match="without client 'a' gives logits that are not finite"):
        removal_effects(model, record, torch.ones(1, 2), check=False)


@pytest.mark.filterwarnings("ignore:not traced")
def test_two_equal_clients_get_equal_contributions(family):
    model, inputs = model_and_inputs(family, torch.float64)
    record = round_of(model)
    twins = {"0": record.clients["0"], "1": record.clients["0"], "2": record.clients["2"]}
    p = {"0": 0.4, "1": 0.4, "2": 0.2}
    record = RoundRecord(1, twins, p, record.previous_global, fedavg(twins, p))
    model.load_state_dict(record.global_weights)
    found = attribute_round(model, record, inputs, torch.zeros(3, dtype=torch.int64), Method(verify=0)).contributions
    assert_close(found[:, 0], found[:, 1])


def test_the_label_can_be_the_target():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 4)).double()
    record, inputs = round_of(model), torch.randn(5, 6, dtype=torch.float64)
    labels = torch.tensor([0, 1, 2, 3, 0])
    method = Method(layer_decay=1.0, weighting="none", reference="none", target="label")
    found = attribute_round(model, record, inputs, labels, method).contributions
    expected = [
        [(inputs[i] @ c["0.weight"][y] + c["0.bias"][y]) for c in record.clients.values()] for i, y in enumerate(labels)
    ]
    assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_a_client_that_is_the_whole_average_cannot_be_left_out():
    alone = RoundRecord(1, {"0": {}}, {"0": 1.0}, {}, {})
    with pytest.raises(ValueError, match="no model without it"):
        weights_without(alone, "0")


def noisy_round(model):
    """Return a round whose deployed model is the average with noise on its parameters."""
    record = round_of(model)
    trainable = {name for name, _ in model.named_parameters()}
    noise = {n: 0.1 * torch.randn_like(t) if n in trainable else 0 * t for n, t in record.global_weights.items()}
    deployed = {n: t + noise[n] for n, t in record.global_weights.items()}
    model.load_state_dict(deployed)
    return dataclasses.replace(record, global_weights=deployed, before_noise=record.global_weights), noise


def test_the_noise_stays_where_a_client_is_left_out():
    model, _ = model_and_inputs("resnet18", torch.float64)
    record, noise = noisy_round(model)
    others = fedavg(record.clients, {"0": 0.5 / 0.8, "1": 0.3 / 0.8, "2": 0.0})
    assert_close(weights_without(record, "2"), {n: t + noise[n] for n, t in others.items()})
    plain = record.without_noise()
    assert plain.before_noise is None
    assert_close(weights_without(plain, "2"), others)


def test_removal_is_exact_on_a_noisy_linear_model_too():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 3)).double().eval()
    record, _ = noisy_round(model)
    inputs = torch.randn(4, 5, dtype=torch.float64)
    found = attribute_round(model, record, inputs, torch.zeros(4, dtype=torch.int64), Method(verify=0))
    assert_close(found.contributions, removal_effects(model, record, inputs), check_dtype=False)


class Placed(nn.Linear):
    """A layer that notes where its weights begin."""

    def forward(self, x):
        self.begins = {*getattr(self, "begins", ()), self.weight.data_ptr() % 64, self.bias.data_ptr() % 64}
        return super().forward(x)


def anywhere(state):
    """Return weights as they lie in a file that is mapped: none begins where a vector register may."""
    found = {}
    for name, tensor in state.items():
        room = torch.empty(tensor.numel() + 16)
        found[name] = room[1 : 1 + tensor.numel()].view_as(tensor).copy_(tensor)
        assert found[name].data_ptr() % 64
    return found


def test_where_weights_lie_in_memory_changes_nothing():
    """Mapped from a file they begin anywhere, and the last digits of a product may depend on where its factors do."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), Placed(12, 5))
    record, inputs = round_of(model), torch.randn(1, 12)
    expected = removal_effects(model, record, inputs)
    mapped = dataclasses.replace(
        record,
        clients={k: anywhere(state) for k, state in record.clients.items()},
        previous_global=anywhere(record.previous_global),
        global_weights=anywhere(record.global_weights),
    )
    assert torch.equal(removal_effects(model, mapped, inputs), expected)
    assert model[1].begins == {0}
