"""Rounds of a small network, with what is right of them: models that are averaged, loaded and run one by one."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from tracefl.provenance import (
    Method,
    RoundRecord,
    attribute_round,
    counterfactuals,
    exact_shapley,
    explain,
    removal_effects,
    sampled_shapley,
    weights_without,
)

COUNTS = {"a": 1200, "b": 300, "c": 50}
P = {k: n / 1550 for k, n in COUNTS.items()}
INPUTS = torch.randn(4, 6, generator=torch.Generator().manual_seed(3))
LABELS = torch.zeros(4, dtype=torch.int64)
EXACT = Method(verify="all")
ESTIMATE = Method(verify=0)
PUBLISHED = Method.artifact()


class Net(nn.Module):
    """Two linear layers and a normalisation, some levels deep or not."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 4)

    def forward(self, x):
        return self.last(self.norm(self.first(x)).relu())


class Wrapped(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(x)


def mean(clients, p):
    """The average, in float64 and rounded once; integers are the first client's."""
    first = next(iter(clients.values()))
    return {
        n: sum(p[k] * c[n].double() for k, c in clients.items()).to(t.dtype) if t.is_floating_point() else t
        for n, t in first.items()
    }


def stepped(start, average, rate, averaged=()):
    """The server's step to the average, which the ``averaged`` tensors do not take: the average is deployed."""
    rates = {n: 1.0 if n in averaged else rate for n in start}
    return {n: (s + rates[n] * (average[n] - s)) if s.is_floating_point() else s for n, s in start.items()}


class Round:
    """A round of ``Net``, with a step of the server, and what is right of it by building every model."""

    def __init__(self, rate=1.0, scale=0.3, averaged=(), carried=0.0, dtype=torch.float32):
        torch.manual_seed(0)
        self.model = Net().eval().to(dtype)
        self.start = {n: t.clone() for n, t in self.model.state_dict().items()}
        self.clients = {
            k: {n: t + scale * torch.rand_like(t) if t.is_floating_point() else t for n, t in self.start.items()}
            for k in P
        }
        self.rate, self.averaged, self.carried = rate, averaged, carried
        made = stepped(self.start, mean(self.clients, P), rate, averaged)
        self.weights = self.with_momentum(made)
        self.model.load_state_dict(self.weights)
        before = made if carried else None
        self.record = RoundRecord(1, self.clients, P, self.start, self.weights, before, server_step=rate)

    def with_momentum(self, weights):
        """What the server adds of earlier rounds, to what it steps."""
        carried = {n for n, t in weights.items() if t.is_floating_point() and n not in self.averaged}
        return {n: t + self.carried if n in carried else t for n, t in weights.items()}

    @torch.no_grad()
    def logits(self, weights):
        model = copy.deepcopy(self.model)
        model.load_state_dict(weights)
        return model(INPUTS.to(weights["last.weight"].dtype)).double()

    def centered(self, ids):
        """The predicted class's centered logits where only these clients are averaged."""
        classes = self.logits(self.weights).argmax(1)
        logits = self.logits(self.made_by(ids))
        return logits.gather(1, classes[:, None])[:, 0] - logits.mean(1)

    def made_by(self, ids):
        """The server's model where only these clients' weights came in."""
        if not ids:
            return self.with_momentum(self.start)
        total = sum(P[k] for k in ids)
        some = mean({k: self.clients[k] for k in ids}, {k: P[k] / total for k in ids})
        return self.with_momentum(stepped(self.start, some, self.rate, self.averaged))

    @property
    def effects(self):
        return torch.stack([self.centered("abc") - self.centered([j for j in P if j != k]) for k in P], dim=1)


def answers(model, record, classes):
    """What each function says the removals' effects are, and the Shapley values' sum."""
    found = {
        "removal_effects": removal_effects(model, record, INPUTS),
        "counterfactuals": counterfactuals(model, record, INPUTS).effects,
        "attribute_round": attribute_round(model, record, INPUTS, LABELS, EXACT).contributions,
    }
    explained = explain(model, record, INPUTS[:1], checked=3)
    by_id = {client.client_id: client.removal.effect for client in explained.clients}
    found["explain"] = torch.tensor([[by_id[k] for k in record.clients]])
    totals = {
        "exact_shapley": exact_shapley(model, record, INPUTS, classes),
        "sampled_shapley": sampled_shapley(model, record, INPUTS, classes, 4, 0),
    }
    return found, totals


def assert_right(round_, model, record):
    classes = round_.logits(round_.weights).argmax(1)
    found, totals = answers(model, record, classes)
    for name, effects in found.items():
        expected = round_.effects[: len(effects)]
        assert_close(effects.double(), expected, rtol=1e-4, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}")
    for values in totals.values():
        assert_close(values.total, round_.centered("abc") - round_.centered(""), rtol=1e-4, atol=1e-5)
        assert_close(values.values.sum(1), values.total)
    subsets = ["", "a", "b", "c", "ab", "ac", "bc", "abc"]
    value = {frozenset(s): round_.centered(list(s)) for s in subsets}
    for i, k in enumerate("abc"):
        others = [s for s in value if k not in s]
        share = {0: 1 / 3, 1: 1 / 6, 2: 1 / 3}
        expected = sum(share[len(s)] * (value[s | {k}] - value[s]) for s in others)
        assert_close(totals["exact_shapley"].values[:, i], expected, rtol=1e-4, atol=1e-5)


def renamed(record, change):
    return replace(
        record,
        clients={k: {change(n): t for n, t in c.items()} for k, c in record.clients.items()},
        previous_global={change(n): t for n, t in record.previous_global.items()},
        global_weights={change(n): t for n, t in record.global_weights.items()},
    )


FUNCTIONS = {
    "removal_effects": lambda m, r: removal_effects(m, r, INPUTS),
    "counterfactuals": lambda m, r: counterfactuals(m, r, INPUTS),
    "attribute_round": lambda m, r: attribute_round(m, r, INPUTS, LABELS, ESTIMATE),
    "leave_one_out": lambda m, r: attribute_round(m, r, INPUTS, LABELS, EXACT),
    "explain": lambda m, r: explain(m, r, INPUTS[:1]),
    "exact_shapley": lambda m, r: exact_shapley(m, r, INPUTS, LABELS),
    "sampled_shapley": lambda m, r: sampled_shapley(m, r, INPUTS, LABELS, 4, 0),
    "weights_without": lambda m, r: weights_without(r, next(iter(r.clients))),
}
every_function = pytest.mark.parametrize("ask", FUNCTIONS.values(), ids=FUNCTIONS)
WITH_MODEL = {name: ask for name, ask in FUNCTIONS.items() if name != "weights_without"}
