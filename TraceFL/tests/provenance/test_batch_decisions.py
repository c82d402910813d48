"""Models that decide for a whole batch by what its inputs are together: how often the check sees it.

Alone, an input may be decided otherwise, and its row of the batch is then not its own. A check looks at three inputs of
a batch, so it can be passed by chance: docs/method.md has the rates that are measured here.
"""

import pytest
import torch
from torch import nn

from tests.helpers.derivatives import derivatives
from tests.helpers.formula import attribute
from tests.helpers.models import clients_near

WIDTH, INPUTS, MODELS = 16, 20, 25
STATISTICS = {
    "mean": lambda x, z: x.mean(),
    "largest": lambda x, z: x.max(),
    "deviation": lambda x, z: x.std(unbiased=False),
    "mean of a feature": lambda x, z: x[:, 3].mean(),
    "mean of a layer": lambda x, z: z.mean(),
}


class Deciding(nn.Module):
    """Takes one of two layers, the same for the whole batch."""

    def __init__(self, statistic):
        super().__init__()
        self.first, self.one, self.other = nn.Linear(WIDTH, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.head, self.statistic, self.threshold = nn.Linear(8, 4), STATISTICS[statistic], 0.0

    def value(self, x):
        return float(self.statistic(x, torch.tanh(self.first(x))))

    def forward(self, x):
        z = torch.tanh(self.first(x))
        layer = self.one if self.statistic(x, z) > self.threshold else self.other
        return self.head(torch.relu(layer(z)))


@torch.no_grad()
def decided(statistic, seed):
    """Return a model that decides for some input otherwise than for its batch, and the batch."""
    draw = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    model = Deciding(statistic).double().eval()
    x = torch.randn(INPUTS, WIDTH, generator=draw, dtype=torch.float64)
    x += 0.5 * torch.randn(INPUTS, 1, generator=draw, dtype=torch.float64)  # inputs have levels of their own
    values = [model.value(x[i : i + 1]) for i in range(INPUTS)]
    ends = torch.tensor([*values, model.value(x)])
    model.threshold = float(ends.min() + torch.rand((), generator=draw) * (ends.max() - ends.min()))
    together = model.value(x) > model.threshold
    return (
        (model, x) if any((value > model.threshold) != together for value in values) else decided(statistic, seed + 997)
    )


@pytest.mark.parametrize(
    ("statistic", "unseen"),
    [("mean", 3), ("largest", 5), ("deviation", 17), ("mean of a feature", 13), ("mean of a layer", 19)],
)
def test_what_is_decided_for_a_batch_is_mostly_seen(statistic, unseen):
    missed = 0
    for seed in range(MODELS):
        model, x = decided(statistic, seed)
        clients = clients_near(model, 2, scale=0.3)
        found = attribute(model, clients, x.clone(), layer_decay=1.0).contributions
        missed += not torch.allclose(found, derivatives(model, clients, x), rtol=1e-6, atol=1e-8)
    assert missed <= unseen, f"{missed} of {MODELS} models passed the check by chance"
