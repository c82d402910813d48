"""Each layer's part of a contribution: against a computation layer by layer, and against the total."""

import warnings

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from tests.helpers.formula import attribute
from tests.helpers.literal import KINDS, literal_by_layer
from tests.helpers.models import clients_near, model_and_inputs
from tracefl.provenance import Compute, Method, RoundRecord, attribute_round


def quiet(*args, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return attribute(*args, **options)


def predicted(logits):
    return logits.max()


def test_each_layers_part_is_the_literal_one(family):
    model, inputs = model_and_inputs(family, torch.float64, num_inputs=2)
    clients = clients_near(model, num_clients=2)
    found = quiet(model, clients, inputs, by_layer=True)
    assert list(found.layers) == [name for name, layer in model.named_modules() if isinstance(layer, KINDS)]
    assert found.by_layer.shape == (2, 2, len(found.layers))
    assert_close(found.by_layer, literal_by_layer(model, clients, inputs, predicted, 0.9))


def test_the_layers_sum_up_to_the_total(family):
    model, inputs = model_and_inputs(family, num_inputs=2)
    clients = clients_near(model)
    weights = {"0": 0.5, "1": 0.3, "2": 0.2}
    options = {"factors": weights, "reference": model.state_dict(), "also": ("batch_norm", "embedding")}
    total = quiet(model, clients, inputs, target="all", **options)
    found = quiet(model, clients, inputs, target="all", by_layer=True, **options)
    assert total.by_layer is None
    assert total.layers == ()
    assert found.by_layer.shape == (*total.contributions.shape, len(found.layers))
    assert_close(found.contributions, total.contributions)
    assert_close(found.by_layer.sum(dim=-1), total.contributions, rtol=1e-4, atol=1e-5)
    one = found.of_class(torch.tensor([1, 3]))
    assert_close(one.by_layer[1], found.by_layer[1, :, 3])
    assert_close(one.by_layer.sum(dim=-1), one.contributions, rtol=1e-4, atol=1e-5)


def test_layers_by_hand():
    # x = 2. Global: first 3, second 1, so h = 6 and class 1's logit 6; the gradient is h = 6 of second's weight and
    # second * x = 2 of first's. Client a has first 5, second 1: 10 and 6; b has first 0, second 4: 0 and 24.
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False))
    state = {"0.weight": torch.tensor([[3.0]]), "1.weight": torch.tensor([[1.0]])}
    model.load_state_dict(state)
    a = {"0.weight": torch.tensor([[5.0]]), "1.weight": torch.tensor([[1.0]])}
    b = {"0.weight": torch.tensor([[0.0]]), "1.weight": torch.tensor([[4.0]])}
    options = {"target": torch.tensor([1]), "by_layer": True}
    found = attribute(model, {"a": a, "b": b}, torch.tensor([[2.0]]), layer_decay=1.0, **options)
    assert found.layers == ("0", "1")
    assert found.by_layer.tolist() == [[[10.0, 6.0], [0.0, 24.0]]]
    assert found.contributions.tolist() == [[16.0, 24.0]]
    halved = attribute(model, {"a": a, "b": b}, torch.tensor([[2.0]]), layer_decay=0.5, **options)
    assert halved.by_layer.tolist() == [[[5.0, 6.0], [0.0, 24.0]]]
    # As the round's method of leaving one out: differences to the average, times p / (1 - p) = 1. The average has 2.5
    # twice, so the gradients are 5 and 5.
    average = {"0.weight": torch.tensor([[2.5]]), "1.weight": torch.tensor([[2.5]])}
    record = RoundRecord(1, {"a": a, "b": b}, {"a": 0.5, "b": 0.5}, state, average)
    method = Method(target="label", also=())
    left = attribute_round(model, record, torch.tensor([[2.0]]), torch.tensor([1]), method, by_layer=True)
    assert left.by_layer.tolist() == [[[12.5, -7.5], [-12.5, 7.5]]]


def test_a_layer_that_the_prediction_does_not_pass_adds_nothing():
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.unused, self.never, self.head = nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, x):
            self.unused(x)
            return self.head(x)

    model = Branches()
    found = quiet(model, clients_near(model), torch.randn(3, 2), by_layer=True)
    assert found.layers == ("unused", "never", "head")
    assert not found.by_layer[:, :, :2].any()
    assert_close(found.by_layer[:, :, 2], found.contributions)


@pytest.mark.parametrize("size", [1, 2])
def test_batches_do_not_matter(size):
    model, inputs = model_and_inputs("gpt", torch.float64, num_inputs=3)
    clients = clients_near(model)
    whole = quiet(model, clients, inputs, by_layer=True)
    assert_close(
        quiet(model, clients, inputs, by_layer=True, compute=Compute(batch_size=size)).by_layer, whole.by_layer
    )
