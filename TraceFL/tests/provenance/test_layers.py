import copy

import pytest
import torch
from opacus.grad_sample import GradSampleModule
from torch import nn
from torch.testing import assert_close
from transformers.pytorch_utils import Conv1D

from tests.provenance.conftest import clients_near, model_and_inputs
from tracefl.provenance import attribute, engine, register_layer
from tracefl.provenance.layers import gradient_rule

pytestmark = pytest.mark.filterwarnings("ignore:not traced", "ignore:.*weight_norm")

LAYERS = {
    "linear": (nn.Linear(5, 3), (4, 5)),
    "linear without bias": (nn.Linear(5, 3, bias=False), (4, 5)),
    "linear on tokens": (nn.Linear(5, 3), (4, 7, 5)),
    "linear on a grid": (nn.Linear(5, 3), (4, 2, 3, 5)),
    "transformers' Conv1D": (Conv1D(3, 5), (4, 7, 5)),
    "conv2d": (nn.Conv2d(4, 6, 3), (4, 4, 8, 8)),
    "conv2d, stride and padding": (nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 2)), (4, 4, 7, 8)),
    "conv2d, dilation": (nn.Conv2d(4, 6, 3, dilation=2), (4, 4, 9, 9)),
    "conv2d, groups": (nn.Conv2d(4, 6, 3, groups=2, bias=False), (4, 4, 8, 8)),
    "conv2d, depthwise": (nn.Conv2d(4, 8, 3, groups=4, padding="same"), (4, 4, 8, 8)),
    "conv2d, reflected": (nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"), (4, 4, 8, 8)),
    "conv2d, circular, same": (nn.Conv2d(4, 6, 4, padding="same", padding_mode="circular"), (4, 4, 8, 8)),
    "conv1d": (nn.Conv1d(4, 6, 3, stride=2, padding=1), (4, 4, 9)),
    "conv1d, groups, dilation": (nn.Conv1d(4, 6, 3, groups=2, dilation=2), (4, 4, 9)),
    "layer norm": (nn.LayerNorm(5), (4, 7, 5)),
    "layer norm on two dimensions": (nn.LayerNorm((7, 5)), (4, 7, 5)),
    "layer norm without bias": (nn.LayerNorm(5, bias=False), (4, 7, 5)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_rule_agrees_with_autograd(name):
    """Input by input, the rule's gradient is what autograd gives for that input alone."""
    layer, shape = LAYERS[name]
    layer = layer.double()
    torch.manual_seed(0)
    inputs = torch.randn(shape, dtype=torch.float64)
    weights = torch.randn(layer(inputs).shape, dtype=torch.float64)
    found = gradient_rule(layer)(layer, inputs, weights)
    assert set(found) == {n for n, _ in layer.named_parameters()}
    for i in range(len(inputs)):
        layer.zero_grad()
        (layer(inputs[i : i + 1]) * weights[i : i + 1]).sum().backward()
        for parameter_name, parameter in layer.named_parameters():
            assert_close(found[parameter_name][i], parameter.grad)


@pytest.mark.parametrize("name", ["linear on tokens", "conv2d, groups", "conv1d, groups, dilation", "layer norm"])
def test_rule_agrees_with_opacus(name):
    """Opacus computes per-sample gradients for another purpose, by other code."""
    layer, shape = LAYERS[name]
    sampled = GradSampleModule(copy.deepcopy(layer).double(), loss_reduction="sum")
    inputs = torch.randn(shape, dtype=torch.float64)
    output = sampled(inputs)
    weights = torch.randn_like(output)
    (output * weights).sum().backward()
    found = gradient_rule(layer)(layer, inputs, weights)
    for parameter_name, parameter in sampled._module.named_parameters():
        assert_close(found[parameter_name], parameter.grad_sample)


@pytest.mark.parametrize("traffic", [-torch.inf, torch.inf])
def test_both_contractions_give_the_same(family, traffic, monkeypatch):
    model, inputs = model_and_inputs(family, torch.float64)
    clients = clients_near(model)
    chosen = attribute(model, clients, inputs).contributions
    monkeypatch.setattr(engine, "_GRADIENT_TRAFFIC", traffic)  # forces one way for every layer
    assert_close(attribute(model, clients, inputs).contributions, chosen)


def test_gradients_in_chunks_give_the_same(monkeypatch):
    model, inputs = model_and_inputs("gpt", torch.float64, num_inputs=5)
    clients = clients_near(model)
    monkeypatch.setattr(engine, "_GRADIENT_TRAFFIC", -torch.inf)
    whole = attribute(model, clients, inputs, layers=["transformer", "score"]).contributions
    monkeypatch.setattr(engine, "_CHUNK_BYTES", 1)  # one input at a time
    assert_close(attribute(model, clients, inputs, layers=["transformer", "score"]).contributions, whole)


def test_a_subclass_with_a_forward_of_its_own_is_not_taken_for_its_parent():
    class Twice(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    class Renamed(nn.Linear):
        pass

    assert gradient_rule(Twice(2, 2)) is None
    assert gradient_rule(Renamed(2, 2)) is gradient_rule(nn.Linear(2, 2))


def test_a_layer_with_parameters_of_another_kind_is_not_traced():
    model = nn.Sequential(nn.Linear(2, 2), nn.utils.weight_norm(nn.Linear(2, 2)))
    assert gradient_rule(model[1]) is None
    with pytest.warns(UserWarning, match=r"1 Linear \(1\)"):
        attribute(model, {"a": model.state_dict()}, torch.ones(1, 2))


def test_a_registered_kind_is_traced():
    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.tensor([2.0, 3.0]))

        def forward(self, x):
            return self.scale * x

    @register_layer(Scale, parameters=["scale"])
    def _scale(layer, layer_input, gradient):
        return {"scale": layer_input * gradient}

    model = nn.Sequential(Scale())
    found = attribute(model, {"a": {"0.scale": torch.tensor([1.0, 10.0])}}, torch.tensor([[1.0, 1.0]]))
    assert_close(found.contributions, torch.tensor([[10.0]]))  # class 1 is predicted, 3 > 2; client's scale 10 times 1
