"""Models in other memory formats and types of numbers, with checkpointing, or with layers that are random in training.

Each is compared with autograd in float64, input by input (``tests/helpers/derivatives.py``).
"""

import copy

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torch.testing import assert_close
from torch.utils import checkpoint as checkpointing
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

from tests.helpers.derivatives import derivatives
from tests.helpers.formula import attribute
from tests.helpers.models import clients_near
from tracefl.errors import CheckError
from tracefl.provenance import RoundRecord, removal_effects, who
from tracefl.provenance.removal import float64_average

DIMENSIONS = {
    2: (nn.Conv2d, nn.BatchNorm2d, nn.ConvTranspose2d, torch.channels_last),
    3: (nn.Conv3d, nn.BatchNorm3d, nn.ConvTranspose3d, torch.channels_last_3d),
}


class Pictures(nn.Module):
    """What has a rule, of two or three spatial dimensions: (B, 3, 6, 6) or (B, 3, 6, 6, 6)."""

    def __init__(self, dimensions=2):
        super().__init__()
        conv, norm, transposed, _ = DIMENSIONS[dimensions]
        self.body = nn.Sequential(
            *(conv(3, 4, 3, padding=1), norm(4), nn.ReLU(), conv(4, 4, 3, groups=4, stride=2)),
            *(nn.GroupNorm(2, 4), transposed(4, 4, 2, stride=2), nn.ReLU()),
        )
        self.head = nn.Linear(4 * 4**dimensions, 5)

    def forward(self, x):
        return self.head(self.body(x).flatten(1))


class Texts(nn.Module):
    """What has a rule beside what is differentiated: (B, 5) tokens."""

    def __init__(self):
        super().__init__()
        self.embed, self.position = nn.Embedding(20, 8), nn.Parameter(0.3 * torch.randn(5, 8))
        self.mix, self.norm = nn.MultiheadAttention(8, 2, batch_first=True), nn.LayerNorm(8)
        self.read, self.head = nn.LSTM(8, 8, batch_first=True), nn.Linear(8, 5)

    def forward(self, x):
        z = self.embed(x) + self.position
        z = self.norm(z + self.mix(z, z, z)[0])
        return 4 * self.head(self.read(z)[0].mean(1))


def made(kind, dtype=torch.float32, dimensions=2):
    torch.manual_seed(0)
    if kind is Texts:
        return Texts().eval().to(dtype), torch.randint(20, (6, 5))
    model = Pictures(dimensions).eval().to(dtype)
    return model, torch.randn(6, 3, *[6] * dimensions).to(dtype)


def assert_right(model, x, tolerance, like=None):
    """Compare both ways of the engine with autograd of ``like``, the model itself where that is None."""
    clients, own = clients_near(model, scale=0.3), dict(model.state_dict())
    for reference in (None, own):
        options = {"layer_decay": 1.0, "also": ("batch_norm", "embedding"), "reference": reference}
        found = attribute(model, clients, x.clone(), **options).contributions
        expected = derivatives(like or model, clients, x, reference=reference)
        assert_close(found.double(), expected, rtol=0, atol=tolerance * float(expected.abs().max()))


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("last", ["model", "inputs", "both"])
def test_channels_last(dimensions, last):
    model, x = made(Pictures, dimensions=dimensions)
    memory_format = DIMENSIONS[dimensions][3]
    if last != "inputs":
        model = model.to(memory_format=memory_format)
        assert not model.body[0].weight.is_contiguous()
    x = x if last == "model" else x.to(memory_format=memory_format)
    assert_right(model, x, 1e-5)
    weights = dict(model.state_dict())
    clients = clients_near(model, scale=0.3)
    plain = {k: {n: t.contiguous() for n, t in client.items()} for k, client in clients.items()}
    average = float64_average(RoundRecord(1, clients, dict.fromkeys("012", 1 / 3), weights, weights))
    weights |= {n: t.to(weights[n]) for n, t in average.items()}
    p = dict.fromkeys("012", 1 / 3)
    found = removal_effects(model, RoundRecord(1, clients, p, weights, weights), x)
    as_usual = {n: t.contiguous() for n, t in weights.items()}
    assert_close(found, removal_effects(model, RoundRecord(1, plain, p, as_usual, as_usual), x), rtol=1e-4, atol=1e-5)


#: Of the largest contribution, how much a type's rounding of every layer's output may change.
TYPES = {torch.float64: 1e-12, torch.float16: 0.01, torch.bfloat16: 0.05}


@pytest.mark.parametrize("kind", [Pictures, Texts])
@pytest.mark.parametrize("dtype", TYPES)
def test_other_types_of_numbers(kind, dtype):
    model, x = made(kind, dtype)
    classes = model(x).argmax(1)
    assert torch.equal(classes, copy.deepcopy(model).double()(x.double() if kind is Pictures else x).argmax(1))
    assert_right(model, x, TYPES[dtype])


@pytest.mark.parametrize("dtype", TYPES)
def test_an_answer_in_other_types_of_numbers(dtype):
    """The model without a client is averaged in float64, rounded and run in the model's type."""
    model, x = made(Pictures, dtype)
    clients = clients_near(model, scale=0.3)
    found = who(model, clients, x, sizes=[1, 2, 5])
    assert found.exact.all()
    p = {"0": 0.125, "1": 0.25, "2": 0.625}

    def logits(ids):
        total = sum(p[k] for k in ids)
        other = copy.deepcopy(model)
        mean = {n: sum(p[k] / total * clients[k][n].double() for k in ids).to(t) for n, t in own.items()}
        other.load_state_dict(mean, strict=False)
        return other(x).detach().double()

    own = {n: t for n, t in model.state_dict().items() if t.is_floating_point()}
    everyone = logits("012")
    classes = everyone.argmax(1, keepdim=True)
    for place, k in enumerate("012"):
        apart = everyone - logits([j for j in "012" if j != k])
        effect = apart.gather(1, classes)[:, 0] - apart.mean(1)
        assert_close(found.contributions[:, place].double(), effect, rtol=1e-4, atol=1e-5)


class Checkpointed(nn.Module):
    """A block that is run again in the backward pass, first of all or behind another layer."""

    def __init__(self, how, first):
        super().__init__()
        self.how, self.first = how, first
        self.a, self.head = nn.Linear(6, 6), nn.Linear(6, 4)
        self.block = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.LayerNorm(6), nn.Linear(6, 6))

    def forward(self, x):
        z = x if self.first else torch.tanh(self.a(x))
        if self.how is None:
            z = self.block(z)
        elif self.how == "sequential":
            z = checkpoint_sequential(self.block, 2, z, use_reentrant=True)
        else:
            z = checkpoint(self.block, z, use_reentrant=self.how == "reentrant")
        return self.head(F.relu(z))


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("how", ["not reentrant", "reentrant", "sequential"])
def test_activation_checkpointing_changes_nothing(how, first):
    torch.manual_seed(0)
    model, plain = Checkpointed(how, first).eval(), Checkpointed(None, first).eval()
    plain.load_state_dict(model.state_dict())
    own = checkpointing.CheckpointFunction
    assert_right(model, torch.randn(6, 6), 1e-5, like=plain)
    assert checkpointing.CheckpointFunction is own


def test_a_densenet_that_saves_memory_by_checkpointing():
    def densenet(memory_efficient):
        return torchvision.models.DenseNet(4, (2, 2), 8, 2, num_classes=4, memory_efficient=memory_efficient).eval()

    torch.manual_seed(0)
    model, plain = densenet(True), densenet(False)
    plain.load_state_dict(model.state_dict())
    assert_right(model, torch.randn(3, 3, 32, 32), 1e-5, like=plain)


class Deep(nn.Module):
    """A residual branch that passes through a layer, ``drop``."""

    def __init__(self, drop):
        super().__init__()
        self.a, self.b, self.drop, self.head = nn.Linear(6, 6), nn.Linear(6, 6), drop, nn.Linear(6, 4)

    def forward(self, x):
        z = torch.tanh(self.a(x))
        return self.head(z + self.drop(self.b(z)))


class ByHand(nn.Module):
    """Dropout as models write it: by a function, in training alone or always."""

    def __init__(self, always):
        super().__init__()
        self.always = always

    def forward(self, z):
        return F.dropout(z, 0.5, self.always or self.training)


DROPS = {
    **{kind.__name__: kind for kind in (nn.Dropout, nn.Dropout1d, nn.AlphaDropout, nn.FeatureAlphaDropout)},
    "RReLU": nn.RReLU,
    "StochasticDepth of rows": lambda: torchvision.ops.StochasticDepth(0.5, "row"),
    "StochasticDepth of batches": lambda: torchvision.ops.StochasticDepth(0.5, "batch"),
    "by hand": lambda: ByHand(always=False),
}


@pytest.mark.parametrize("drop", DROPS)
def test_what_is_random_in_training_is_not_where_it_is_attributed(drop):
    torch.manual_seed(0)
    model = Deep(DROPS[drop]())  # in training, as it comes from it
    assert_right(model, torch.randn(6, 6), 1e-5)
    assert model.training
    assert model.drop.training


def test_dropout_that_is_random_in_evaluation_too_is_refused():
    torch.manual_seed(0)
    model = Deep(ByHand(always=True)).eval()
    with pytest.raises(CheckError, match="answers differently when asked the same input twice"):
        attribute(model, clients_near(model), torch.randn(6, 6))
