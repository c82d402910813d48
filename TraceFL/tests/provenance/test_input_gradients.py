"""What no rule covers is differentiated many inputs at once, where the model allows it, and leaves no trace in it."""

import copy

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from tests.helpers.derivatives import derivatives
from tests.helpers.formula import attribute
from tests.helpers.models import clients_near
from tracefl.provenance import Compute


class Scaled(nn.Module):
    """A bare parameter, and a layer that is there under two names and used by a function of its weight."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.rand(4))
        self.first = self.second = nn.Linear(4, 4)
        self.head = nn.Linear(4, 3)
        self.calls, self.seen = 0, None

    def forward(self, x):
        self.calls += 1
        z = torch.tanh(self.first(x) * self.scale) @ self.second.weight
        self.seen = z.detach()
        return self.head(z)


class ByValue(Scaled):
    """It looks at its values, which none can do that is vectorised."""

    def forward(self, x):
        if not x.isfinite().all():
            raise ValueError("not finite")
        return super().forward(x)


class Recurrent(nn.Module):
    """A recurrent layer's weights are not looked up by their names."""

    def __init__(self):
        super().__init__()
        self.cell, self.head = nn.GRU(1, 4, batch_first=True), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.cell(x.unsqueeze(2))[0][:, -1])


@pytest.mark.parametrize("kind", [Scaled, ByValue, Recurrent])
@pytest.mark.parametrize("batch_size", [None, 3, 1])
@pytest.mark.parametrize("target", ["predicted", "all", "classes"])
def test_contributions_are_derivatives(kind, batch_size, target):
    torch.manual_seed(0)
    model, x = kind().double().eval(), torch.randn(7, 4, dtype=torch.float64)
    clients, own = clients_near(model), model.state_dict()
    predicted = torch.stack([model(one.unsqueeze(0))[0].argmax() for one in x])
    compute = Compute(batch_size)
    asked = predicted if target == "classes" else target
    found = attribute(model, clients, x, target=asked, layer_decay=1.0, reference=own, compute=compute)
    given = found.contributions
    if target == "all":
        given = given[torch.arange(7), :, predicted]
    assert_close(given, derivatives(model, clients, x, own))


def test_inputs_are_run_together():
    model, x = Scaled(), torch.randn(20, 4)
    attribute(model, clients_near(model), x, check=False)
    assert model.calls < 5  # else 20 and more


def test_the_model_is_left_as_it_was():
    model, x = Scaled(), torch.randn(5, 4)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    attribute(model, clients_near(model), x)
    assert_close(copy.deepcopy(model).state_dict(), before)
    assert model.seen.shape[1:] == (4,)
    assert model.seen.tolist()
    assert all(type(parameter) is nn.Parameter for parameter in model.parameters())


def test_memory_bounds_how_many():
    torch.manual_seed(0)
    model, x = Scaled().double(), torch.randn(9, 4, dtype=torch.float64)
    clients = clients_near(model)
    together = attribute(model, clients, x)
    few = attribute(model, clients, x, compute=Compute(memory_budget=2048))
    assert_close(few.contributions, together.contributions)
