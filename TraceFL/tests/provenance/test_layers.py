"""Every kind of layer against autograd, in both orders of multiplication and in blocks of any size."""

import copy
import re

import pytest
import torch
from opacus.grad_sample import GradSampleModule
from torch import nn
from torch.testing import assert_close
from torchvision.models.convnext import LayerNorm2d
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.pytorch_utils import Conv1D

from tests.helpers.formula import attribute
from tests.helpers.models import clients_near, model_and_inputs
from tracefl import provenance
from tracefl.provenance import Compute, contraction, register_layer
from tracefl.provenance.layers import OuterProducts, gradient_rule

pytestmark = pytest.mark.filterwarnings("ignore:not traced", "ignore:.*weight_norm")

LAYERS = {
    "linear": (nn.Linear(5, 3), (4, 5)),
    "linear without bias": (nn.Linear(5, 3, bias=False), (4, 5)),
    "linear on tokens": (nn.Linear(5, 3), (4, 7, 5)),
    "linear on a grid": (nn.Linear(5, 3), (4, 2, 3, 5)),
    "transformers' Conv1D": (Conv1D(3, 5), (4, 7, 5)),
    "conv1d": (nn.Conv1d(4, 6, 3, stride=2, padding=1), (4, 4, 9)),
    "conv1d, groups, dilation": (nn.Conv1d(4, 6, 3, groups=2, dilation=2), (4, 4, 9)),
    "conv2d": (nn.Conv2d(4, 6, 3), (4, 4, 8, 8)),
    "conv2d, stride and padding": (nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 2)), (4, 4, 7, 8)),
    "conv2d, dilation": (nn.Conv2d(4, 6, 3, dilation=2), (4, 4, 9, 9)),
    "conv2d, groups": (nn.Conv2d(4, 6, 3, groups=2, bias=False), (4, 4, 8, 8)),
    "conv2d, depthwise": (nn.Conv2d(4, 8, 3, groups=4, padding="same"), (4, 4, 8, 8)),
    "conv2d, reflected": (nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"), (4, 4, 8, 8)),
    "conv2d, circular, same": (nn.Conv2d(4, 6, 4, padding="same", padding_mode="circular"), (4, 4, 8, 8)),
    "conv2d on one pixel": (nn.Conv2d(4, 6, 3, padding=1), (4, 4, 1, 1)),
    "conv2d on two pixels, stride": (nn.Conv2d(4, 6, 5, stride=2, padding=2, groups=2), (4, 4, 2, 3)),
    "conv3d": (nn.Conv3d(4, 6, (1, 2, 3), stride=(1, 2, 1), padding=(0, 1, 1), groups=2), (4, 4, 3, 4, 5)),
    "transposed conv1d": (nn.ConvTranspose1d(4, 6, 3, stride=2, padding=1), (4, 4, 5)),
    "transposed conv2d": (nn.ConvTranspose2d(4, 6, 3, stride=2, output_padding=1, dilation=2), (4, 4, 3, 4)),
    "transposed conv2d, groups": (nn.ConvTranspose2d(4, 6, 3, padding=2, groups=2, bias=False), (4, 4, 5, 4)),
    "transposed conv3d": (nn.ConvTranspose3d(4, 2, 2), (4, 4, 2, 3, 2)),
    "layer norm": (nn.LayerNorm(5), (4, 7, 5)),
    "layer norm on two dimensions": (nn.LayerNorm((7, 5)), (4, 7, 5)),
    "layer norm without bias": (nn.LayerNorm(5, bias=False), (4, 7, 5)),
    "group norm": (nn.GroupNorm(2, 4), (4, 4, 3, 2)),
    "group norm of vectors": (nn.GroupNorm(2, 4), (4, 4)),
    "layer norm of channels": (LayerNorm2d(5), (4, 5, 3, 2)),
    "RMS norm": (nn.RMSNorm(5), (4, 7, 5)),
    "RMS norm of transformers": (LlamaRMSNorm(5), (4, 7, 5)),
    "batch norm": (nn.BatchNorm2d(5), (4, 5, 3, 2)),
    "batch norm of features": (nn.BatchNorm1d(5), (4, 5)),
    "batch norm without parameters": (nn.BatchNorm2d(5, affine=False), (4, 5, 3, 2)),
    "embedding": (nn.Embedding(9, 5, padding_idx=2), (4, 7)),
}
CLASSES = 3


class Classifier(nn.Module):
    """One layer, then fixed random sums of its outputs as logits."""

    def __init__(self, layer, shape):
        super().__init__()
        self.layer = copy.deepcopy(layer).double()
        torch.manual_seed(0)
        if isinstance(layer, nn.Embedding):
            self.inputs = torch.randint(0, 9, shape)
        else:
            self.inputs = torch.randn(shape, dtype=torch.float64)
        for name, tensor in self.layer.state_dict().items():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand_like(tensor) + (0.5 if "var" in name else 0))
        self.eval()
        with torch.no_grad():
            size = self.layer(self.inputs[:1]).numel()
        self.sums = torch.randn(size, CLASSES, dtype=torch.float64)

    def forward(self, x):
        return self.layer(x).flatten(1) @ self.sums

    def written_out(self, x):
        """Compute the same where PyTorch knows no derivative: of BatchNorm's running statistics."""
        if not hasattr(self.layer, "running_var"):
            return self(x)
        tensors = ("running_mean", "running_var", "weight", "bias")
        m, v, w, b = ((getattr(self.layer, n)) for n in tensors)
        shape = (1, -1, *(1 for _ in x.shape[2:]))
        w, b = (1.0, 0.0) if w is None else (w.view(shape), b.view(shape))
        return ((x - m.view(shape)) / (v.view(shape) + self.layer.eps).sqrt() * w + b).flatten(1) @ self.sums


def by_autograd(model, clients):
    """Return (B, K, C): each class's gradient of each input alone, in the direction of each client's parameters."""
    tensors = {n: t for n, t in (*model.named_parameters(), *model.named_buffers()) if t.is_floating_point()}
    for tensor in tensors.values():
        tensor.requires_grad_(True)
    found = torch.zeros(len(model.inputs), len(clients), CLASSES, dtype=torch.float64)
    for i in range(len(model.inputs)):
        for c in range(CLASSES):
            logit = model.written_out(model.inputs[i : i + 1])[0, c]
            gradients = torch.autograd.grad(logit, list(tensors.values()))
            for k, weights in enumerate(clients.values()):
                found[i, k, c] = sum((weights[n] * g).sum() for n, g in zip(tensors, gradients, strict=True))
    for tensor in tensors.values():
        tensor.requires_grad_(False)
    return found


@pytest.mark.parametrize("by_application", [True, False])
@pytest.mark.parametrize("block", [1, 2**21])
@pytest.mark.parametrize("name", LAYERS)
def test_kind_agrees_with_autograd(name, block, by_application, monkeypatch):
    """All classes, all inputs, all clients at once, and one class alone."""
    monkeypatch.setattr(contraction, "application_is_cheaper", lambda *_: by_application)
    monkeypatch.setitem(contraction._BLOCK, "cpu", block)
    model = Classifier(*LAYERS[name])
    floats = {n: t for n, t in model.state_dict().items() if t.is_floating_point()}
    clients = {k: {n: torch.rand_like(t) for n, t in floats.items()} for k in "abc"}
    also = ("batch_norm", "embedding")
    expected = by_autograd(model, clients)
    found = attribute(model, clients, model.inputs, target="all", also=also)
    assert_close(found.contributions, expected)
    classes = torch.tensor([0, 2, 1, 1])
    one = attribute(model, clients, model.inputs, target=classes, also=also)
    assert_close(one.contributions, expected.gather(2, classes.view(-1, 1, 1).expand(-1, 3, 1)).squeeze(2))
    assert_close(found.of_class(classes).contributions, one.contributions)
    assert_close(found.of_class(classes).scores, one.scores)
    # Differences to the global model are what a reference makes of the same parameters.
    changes = attribute(model, clients, model.inputs, target=classes, also=also, reference=floats)
    differences = {k: {n: weights[n] - floats[n] for n in weights} for k, weights in clients.items()}
    assert_close(
        changes.contributions, attribute(model, differences, model.inputs, target=classes, also=also).contributions
    )


@pytest.mark.parametrize(
    "name", ["linear on tokens", "conv2d, groups", "conv1d, groups, dilation", "layer norm", "group norm"]
)
def test_rule_agrees_with_opacus(name):
    """Opacus computes per-sample gradients for another purpose, by other code."""
    layer, shape = LAYERS[name]
    layer = copy.deepcopy(layer).double()
    sampled = GradSampleModule(copy.deepcopy(layer), loss_reduction="sum")
    inputs = torch.randn(shape, dtype=torch.float64)
    output = sampled(inputs)
    weights = torch.randn_like(output)
    (output * weights).sum().backward()
    found = gradient_rule(layer)(layer, inputs, weights.unsqueeze(1))
    for parameter_name, parameter in sampled._module.named_parameters():
        gradient = found[parameter_name]
        if isinstance(gradient, OuterProducts):
            gradient = torch.einsum("bcgsm,bgsn->bcgmn", gradient.gradient, gradient.layer_input)
        assert_close(gradient.reshape(len(inputs), *parameter.shape), parameter.grad_sample)


@pytest.mark.parametrize("by_application", [True, False])
def test_both_orders_give_the_same(family, by_application, monkeypatch):
    model, inputs = model_and_inputs(family, torch.float64)
    clients = clients_near(model)
    chosen = attribute(model, clients, inputs).contributions
    monkeypatch.setattr(contraction, "application_is_cheaper", lambda *_: by_application)
    assert_close(attribute(model, clients, inputs).contributions, chosen)


@pytest.mark.filterwarnings("ignore:not traced")
@pytest.mark.parametrize("by_application", [True, False])
def test_factors_in_bf16_cost_little(family, by_application, monkeypatch):
    """Of differences between clients, so that a percent is one of what tells clients apart."""
    model, inputs = model_and_inputs(family)
    clients, reference = clients_near(model), model.state_dict()
    monkeypatch.setattr(contraction, "application_is_cheaper", lambda *_: by_application)
    exact = attribute(model, clients, inputs, reference=reference).contributions
    rounded = attribute(model, clients, inputs, reference=reference, compute=Compute(precision="bf16")).contributions
    error = (rounded - exact).abs().max() / exact.abs().max()
    assert 1e-6 < error < 1e-2
    assert rounded.dtype == torch.float32


def test_positions_without_gradient_are_dropped_and_change_nothing():
    torch.manual_seed(0)
    gradient, layer_input = torch.randn(2, 1, 1, 32, 3), torch.randn(2, 1, 32, 4)
    gradient[0, :, :, 5:] = 0
    gradient[1, :, :, :20] = 0
    whole = OuterProducts(gradient, layer_input)
    kept = contraction.without_empty_positions(whole)
    assert kept.gradient.shape == (2, 1, 1, 12, 3)
    form = "bcgsm,bgsn->bcgmn"
    assert_close(
        torch.einsum(form, kept.gradient, kept.layer_input), torch.einsum(form, whole.gradient, whole.layer_input)
    )


@pytest.mark.filterwarnings("default:not traced")
def test_batch_norm_and_embeddings_are_traced_only_where_asked_for(recwarn):
    model = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.BatchNorm1d(8), nn.Linear(8, 2)).eval()
    clients = clients_near(model)
    inputs = torch.randint(0, 9, (3, 2))
    plain = attribute(model, clients, inputs).contributions
    assert_close(plain, attribute(model, clients, inputs, layers=["3"]).contributions)
    (named,) = [str(w.message) for w in recwarn if "not traced" in str(w.message)]
    assert re.fullmatch(
        r"not traced: 1 Embedding \(0\); 1 BatchNorm1d \(2\); \d+% of the change runs through their parameters; "
        r"also=\['batch_norm', 'embedding'\] would trace them",
        named,
    )
    assert not torch.allclose(plain, attribute(model, clients, inputs, also=["batch_norm"]).contributions)
    assert not torch.allclose(plain, attribute(model, clients, inputs, also=["embedding"]).contributions)
    with pytest.raises(ValueError, match="also may name batch_norm, embedding, got 'batch_norm'"):
        attribute(model, clients, inputs, also="batch_norm")


def test_a_subclass_with_a_forward_of_its_own_is_not_taken_for_its_parent():
    class Twice(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    class Renamed(nn.Linear):
        pass

    assert gradient_rule(Twice(2, 2)) is None
    assert gradient_rule(Renamed(2, 2)) is gradient_rule(nn.Linear(2, 2))


def test_a_registered_kind_is_traced():
    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.tensor([2.0, 3.0]))

        def forward(self, x):
            return self.scale * x

    @register_layer(Scale, tensors=["scale"])
    def _scale(layer, layer_input, gradient):
        return {"scale": layer_input.unsqueeze(1) * gradient}

    model = nn.Sequential(Scale())
    found = attribute(model, {"a": {"0.scale": torch.tensor([1.0, 10.0])}}, torch.tensor([[1.0, 1.0]]))
    assert_close(found.contributions, torch.tensor([[10.0]]))  # class 1 is predicted, 3 > 2; client's scale 10 times 1


def test_a_warning_names_the_line_that_calls_attribute():
    model = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 2)).eval()
    with pytest.warns(UserWarning, match="not traced") as caught:
        provenance.attribute(model, {"a": model.state_dict()}, torch.ones(1, 2), also=())
    assert caught[0].filename == __file__
