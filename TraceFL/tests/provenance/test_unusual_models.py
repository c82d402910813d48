"""Models that do not do what their layers' kinds say, or whose rows are not inputs: right all the same.

Each is compared with autograd in float64, input by input (``tests/helpers/derivatives.py``).
"""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations
from torch.testing import assert_close

from tests.helpers.derivatives import derivatives
from tests.helpers.formula import attribute
from tracefl.provenance import Compute

BOTH = ("batch_norm", "embedding")


def clients_of(model, scale=0.3):
    draw = torch.Generator().manual_seed(7)
    floats = {n: w for n, w in model.state_dict().items() if w.is_floating_point()}
    return {k: {n: w + scale * torch.randn(w.shape, generator=draw).to(w) for n, w in floats.items()} for k in "abc"}


class Net(nn.Module):
    """Two layers, and whatever a subclass does with them."""

    def __init__(self, **layers):
        super().__init__()
        self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 4)
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x):
        return self.b(F.relu(self.a(x)))


class InPlace(Net):
    def forward(self, x):
        x.sub_(0.5).div_(0.25)
        return super().forward(x)


class EarlyExit(Net):
    """Some inputs pass through a branch of their own."""

    def forward(self, x):
        z = torch.tanh(self.a(x))
        out, hard = self.b(z).clone(), x[:, 0] > 1
        if hard.any():
            out[hard] = self.h(torch.tanh(self.c(z[hard])))
        return out


class Experts(Net):
    """Each input goes to one of two experts, which see them sorted by it."""

    def forward(self, x):
        z = torch.tanh(self.a(x))
        order = (x[:, 0] > 0).long().argsort(stable=True)
        first = int((x[:, 0] <= 0).sum())
        parts = torch.cat([self.c(z[order[:first]]), self.h2(z[order[first:]])])
        return self.b(parts[order.argsort()])


class Sorted(Net):
    """Sorts its batch, as packing by length does, and puts the logits back."""

    def forward(self, x):
        order = x[:, 0].argsort()
        return self.b(F.relu(self.a(x[order])))[order.argsort()]


class TokensAsRows(Net):
    """Applies a layer to as many tokens as there are inputs, in another order."""

    def forward(self, x):
        z = self.a(x.transpose(0, 1)).transpose(0, 1)  # (T, B, features): T rows
        return self.b(F.relu(z).mean(1))


class Tied(Net):
    def forward(self, x):
        return self.b(F.linear(torch.tanh(self.a(x)), self.a.weight.t()))


class Functional(Net):
    """Uses a layer's weight without calling the layer."""

    def forward(self, x):
        return self.b(torch.tanh(F.linear(x, self.c.weight, self.c.bias)))


class Bare(Net):
    """Has parameters of its own: a token, a scale and a number."""

    def __init__(self):
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 1, 6))
        self.scale = nn.Parameter(torch.rand(6))
        self.temperature = nn.Parameter(torch.tensor(1.5))

    def forward(self, x):
        z = torch.cat([self.token.expand(len(x), -1, -1), x.unsqueeze(1)], dim=1)
        return self.b(F.relu(self.a(z)).mean(1) * self.scale) * self.temperature


class Keyword(Net):
    def forward(self, x):
        return self.b(input=F.relu(self.a(input=x)))


class Mixing(Net):
    """Its answer for an input depends on the batch: then an input is asked alone."""

    def forward(self, x):
        return self.b(F.relu(self.a(x - x.mean(0))) + self.a(x))


class Output(Net):
    def __init__(self, kind):
        super().__init__()
        self.kind = kind

    def forward(self, x):
        out = super().forward(x)
        return (out, out + 1) if self.kind == "tuple" else {"logits": out, "hidden": x}


def hooked(net):
    net.a.register_forward_hook(lambda module, args, output: output * 0.3)
    return net


def pre_hooked(net):
    net.a.register_forward_pre_hook(lambda module, args: (args[0] * 0.3,))
    return net


class Patch:
    """A layer's own forward, which a copy of the layer takes with it."""

    def __init__(self, layer):
        self.layer = layer

    def __call__(self, z):
        return F.linear(z, 2 * self.layer.weight, self.layer.bias)


def patched(net):
    net.a.forward = Patch(net.a)
    return net


def tokens(kind, *arguments, **options):
    """A recurrent or attention layer between two linear ones, on (B, 5, 6)."""

    class Tokens(Net):
        def forward(self, x):
            z = self.a(x)
            z = self.c(z, z, z, need_weights=False) if kind is nn.MultiheadAttention else self.c(z)
            return self.b(F.relu(z[0] if isinstance(z, tuple) else z).mean(1))

    return Tokens(c=kind(*arguments, **options))


PLAIN, LONG = (7, 6), (7, 5, 6)
MODELS = {
    "hook on a layer": (lambda: hooked(Net()), PLAIN),
    "hook before a layer": (lambda: pre_hooked(Net()), PLAIN),
    "forward of its own": (lambda: patched(Net()), PLAIN),
    "weight tied by a function": (Tied, PLAIN),
    "layer never called": (lambda: Functional(c=nn.Linear(6, 6)), PLAIN),
    "layer called by keyword": (Keyword, PLAIN),
    "input changed in place": (InPlace, PLAIN),
    "early exit": (lambda: EarlyExit(c=nn.Linear(6, 6), h=nn.Linear(6, 4)), PLAIN),
    "experts": (lambda: Experts(c=nn.Linear(6, 6), h2=nn.Linear(6, 6)), PLAIN),
    "sorted batch": (Sorted, PLAIN),
    "tokens as rows": (TokensAsRows, (5, 5, 6)),
    "bare parameters": (Bare, PLAIN),
    "batch mixed": (Mixing, PLAIN),
    "tuple": (lambda: Output("tuple"), PLAIN),
    "dict": (lambda: Output("dict"), PLAIN),
    "DataParallel": (lambda: nn.DataParallel(Net()), PLAIN),
    "weight norm": (lambda: Net(a=parametrizations.weight_norm(nn.Linear(6, 6))), PLAIN),
    "spectral norm": (lambda: Net(a=parametrizations.spectral_norm(nn.Linear(6, 6))), PLAIN),
    "orthogonal": (lambda: Net(a=parametrizations.orthogonal(nn.Linear(6, 6))), PLAIN),
    "older weight norm": (lambda: Net(a=nn.utils.weight_norm(nn.Linear(6, 6))), PLAIN),
    "PReLU": (lambda: nn.Sequential(nn.Linear(6, 6), nn.PReLU(6), nn.Linear(6, 4)), PLAIN),
    "bilinear": (lambda: _Bilinear(c=nn.Bilinear(6, 6, 6)), PLAIN),
    "attention": (lambda: tokens(nn.MultiheadAttention, 6, 2, batch_first=True), LONG),
    "transformer encoder": (
        lambda: tokens(nn.TransformerEncoderLayer, 6, 2, dim_feedforward=8, batch_first=True),
        LONG,
    ),
    "LSTM": (lambda: tokens(nn.LSTM, 6, 6, num_layers=2, bidirectional=False, batch_first=True), LONG),
    "GRU": (lambda: tokens(nn.GRU, 6, 6, batch_first=True), LONG),
    "RNN": (lambda: tokens(nn.RNN, 6, 6, batch_first=True), LONG),
    "one logit": (lambda: nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 1)), PLAIN),
}


class _Bilinear(Net):
    def forward(self, x):
        return self.b(self.c(x, self.a(x)))


def made(name):
    torch.manual_seed(0)
    make, shape = MODELS[name]
    model = make().eval()
    x = torch.randn(shape)
    with torch.no_grad():
        model(x.clone())  # the older weight normalisation leaves a copy of its weight that has no graph
    if name == "early exit":
        x = x.clamp(max=0.9)
        x[5, 0] = 1.5  # one input, in the second batch of four
    return model, x


@pytest.mark.filterwarnings("ignore:.*weight_norm", "ignore:.*nested tensors")
@pytest.mark.parametrize("batch_size", [None, 4])
@pytest.mark.parametrize("name", MODELS)
def test_a_contribution_is_the_derivative(name, batch_size):
    model, x = made(name)
    given = x.clone()
    plain = model.module if isinstance(model, nn.DataParallel) else model
    clients = clients_of(plain)
    compute = Compute(batch_size=batch_size)
    found = attribute(model, clients, given, target="predicted", layer_decay=1.0, compute=compute).contributions
    assert_close(found.double(), derivatives(plain, clients, x), rtol=2e-4, atol=2e-5)
    assert torch.equal(given, x)  # whatever the model does with its input


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_the_caller_s_mode_does_not_matter(context):
    model, x = made("bare parameters")
    clients = clients_of(model)
    expected = attribute(model, clients, x).contributions
    with context():
        assert torch.equal(attribute(model, clients, x).contributions, expected)
        assert not torch.is_grad_enabled()


def test_a_hook_that_changes_gradients_changes_no_contribution():
    model, x = made("bare parameters")
    clients = clients_of(model)
    expected = attribute(model, clients, x).contributions
    model.a.register_full_backward_hook(lambda module, before, after: tuple(g * 9 for g in before if g is not None))
    assert torch.equal(attribute(model, clients, x).contributions, expected)
    assert len(model.a._backward_hooks) == 1


def test_all_classes_and_the_parts_by_layer_agree_with_one_at_a_time():
    model, x = made("attention")
    clients = clients_of(model)
    every = attribute(model, clients, x, target="all", by_layer=True)
    assert_close(every.by_layer.sum(dim=-1), every.contributions)
    assert "c" in every.layers
    for c in range(4):
        one = attribute(model, clients, x, target=torch.full((7,), c))
        assert_close(every.of_class(c).contributions, one.contributions)
    assert float(every.by_layer[..., every.layers.index("c")].abs().max()) > 1e-3


class Bag(nn.Module):
    """Texts of any length as one row of tokens, and where each begins."""

    def __init__(self):
        super().__init__()
        self.e, self.f = nn.EmbeddingBag(20, 8), nn.Linear(8, 3)

    def forward(self, text, offsets):
        return self.f(self.e(text, offsets))


class ZeroShot(nn.Module):
    """Images against prompts that all of them share."""

    def __init__(self):
        super().__init__()
        self.image, self.text = nn.Linear(12, 16), nn.Embedding(50, 16)

    def forward(self, prompts, image):
        return self.image(image) @ self.text(prompts).mean(1).T


@pytest.mark.parametrize("prompts", [10, 6])  # another number than images, and the same
def test_an_argument_that_all_inputs_share_belongs_to_each(prompts):
    torch.manual_seed(0)
    model = ZeroShot()
    clients = clients_of(model)
    inputs = {"prompts": torch.randint(0, 50, (prompts, 4)), "image": torch.randn(6, 12)}
    found = attribute(model, clients, inputs, target="predicted", layer_decay=1.0, also=BOTH)
    expected = derivatives(_Shared(model, inputs["prompts"]), _under(clients), inputs["image"])
    assert_close(found.contributions.double(), expected, rtol=1e-4, atol=1e-5)


class _Shared(nn.Module):
    """The same classifier with its prompts within."""

    def __init__(self, model, prompts):
        super().__init__()
        self.model, self.prompts = model, prompts

    def forward(self, x):
        return self.model(self.prompts, x)


def _under(clients):
    return {k: {f"model.{n}": w for n, w in state.items()} for k, state in clients.items()}


def test_texts_in_one_row_with_offsets_are_not_taken_apart():
    torch.manual_seed(0)
    model = Bag()
    clients = clients_of(model)
    texts = [torch.randint(0, 20, (n,)) for n in (40, 7, 300)]
    inputs = {"text": torch.cat(texts), "offsets": torch.tensor([0, 40, 47])}
    found = attribute(model, clients, inputs, target="predicted", layer_decay=1.0, also=BOTH).contributions
    expected = torch.cat([_of_text(model, clients, text) for text in texts])
    assert_close(found.double(), expected, rtol=1e-4, atol=1e-5)


def _of_text(model, clients, text):
    class One(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, offsets):
            return self.model(text, offsets)

    return derivatives(One(), _under(clients), torch.tensor([0]))
