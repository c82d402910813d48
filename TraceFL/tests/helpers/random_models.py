"""Random small classifiers of what real ones do: branches, shared layers, hooks, changes in place, routing, sorting."""

import random

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations

WIDTH, CLASSES = 4, 3


class Block(nn.Module):
    """One step from (B, WIDTH) to (B, WIDTH), with the layers that it has or shares with other steps."""

    def __init__(self, **layers):
        super().__init__()
        for name, layer in layers.items():
            setattr(self, name, layer)


class Plain(Block):
    def forward(self, z):
        return torch.tanh(self.a(z))


class InPlace(Block):
    def forward(self, z):
        return torch.tanh(F.relu_(self.a(z)))


class Residual(Block):
    def forward(self, z):
        return z + self.b(F.relu(self.a(z)))


class Twice(Block):
    def forward(self, z):
        return self.a(torch.tanh(self.a(z)))


class TiedByFunction(Block):
    def forward(self, z):
        return F.linear(torch.tanh(self.a(z)), self.a.weight.t())


class ByFunction(Block):
    def forward(self, z):
        return torch.tanh(F.linear(z, self.a.weight))


class Bare(Block):
    def __init__(self, **layers):
        super().__init__(**layers)
        self.scale = nn.Parameter(torch.rand(WIDTH))
        self.shift = nn.Parameter(torch.tensor(0.2))

    def forward(self, z):
        return self.a(z) * self.scale + self.shift


class Branch(Block):
    def forward(self, z):
        out, some = self.a(z), z[:, 0] > 0
        if some.any():
            out = out.clone()
            out[some] = torch.tanh(self.b(z[some]))
        return out


class Sorted(Block):
    def forward(self, z):
        order = z[:, 0].argsort()
        return torch.tanh(self.a(z[order]))[order.argsort()]


class Experts(Block):
    def forward(self, z):
        order = (z[:, 1] > 0).long().argsort(stable=True)
        first = int((z[:, 1] <= 0).sum())
        seen = torch.cat([self.a(z[order[:first]]), self.b(z[order[first:]])])
        return torch.tanh(seen)[order.argsort()]


class Folded(Block):
    """A layer that sees halves of the inputs, one after the other."""

    def forward(self, z):
        halves = torch.cat([z[:, :2], z[:, 2:]]).repeat(1, 2)
        seen = torch.tanh(self.a(halves))
        return seen[: len(z)] + seen[len(z) :]


class Detached(Block):
    def forward(self, z):
        return self.a(z) + self.b(z).detach()


class Normalised(Block):
    def __init__(self, **layers):
        super().__init__(**layers)
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, z):
        return self.norm(self.a(z) + z)


class Recurrent(Block):
    def __init__(self, **layers):
        super().__init__(**layers)
        self.cell = nn.GRU(1, WIDTH, batch_first=True)

    def forward(self, z):
        return self.a(self.cell(z.unsqueeze(2))[0][:, -1])


class Attention(Block):
    def __init__(self, **layers):
        super().__init__(**layers)
        self.mix = nn.MultiheadAttention(WIDTH, 2, batch_first=True)

    def forward(self, z):
        tokens = torch.stack([z, self.a(z)], dim=1)
        return self.mix(tokens, tokens, tokens)[0].mean(1)


class Pixels(Block):
    def __init__(self, **layers):
        super().__init__(**layers)
        self.conv = nn.Conv1d(1, 2, 3, padding=1)

    def forward(self, z):
        return self.a(F.relu(self.conv(z.unsqueeze(1))).mean(1))


BLOCKS = (
    *(Plain, InPlace, Residual, Twice, TiedByFunction, ByFunction, Bare, Branch, Sorted, Experts, Folded, Detached),
    *(Normalised, Recurrent, Attention, Pixels),
)


class RandomClassifier(nn.Module):
    """Some random steps and a head; a step may use another's layer, and a layer may have a hook or be parametrized."""

    def __init__(self, seed):
        super().__init__()
        draw = random.Random(seed)
        torch.manual_seed(seed)
        pool = [self._layer(draw) for _ in range(3)]

        def layer():
            return draw.choice(pool) if draw.random() < 0.4 else self._layer(draw)

        self.steps = nn.Sequential(*(draw.choice(BLOCKS)(a=layer(), b=layer()) for _ in range(draw.randint(1, 4))))
        self.head = nn.Linear(WIDTH, CLASSES)
        self.changes_input = draw.random() < 0.2
        self.eval()

    def _layer(self, draw):
        layer = nn.Linear(WIDTH, WIDTH, bias=draw.random() < 0.7)
        kind = draw.random()
        if kind < 0.1:
            layer.register_forward_hook(_halve)
        elif kind < 0.2:
            layer = parametrizations.weight_norm(layer)
        return layer

    def forward(self, x):
        if self.changes_input:
            x.mul_(0.7)
        return self.head(self.steps(x))


def _halve(module, args, output):
    return output * 0.5
