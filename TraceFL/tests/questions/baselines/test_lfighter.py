"""LFighter, against all ways to divide the clients in two."""

import copy
from dataclasses import replace
from itertools import product

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from tests.helpers.evidence import cnn_evidence, evidence_of
from tests.helpers.federations import flipping_federation
from tests.helpers.models import clients_near
from tracefl.questions.baselines import RULES, NotApplicableError


def read_slowly(evidence, name, two_classes=True):
    """LFighter as the paper has it, k-means by trying every division."""
    before, updates = evidence.record.previous_global, []
    for weights in evidence.record.clients.values():
        updates.append([weights[part] - before[part] for part in (f"{name}.weight", f"{name}.bias")])
    pull = [sum(float(w[c].norm() + b[c].abs()) for w, b in updates) for c in range(len(updates[0][1]))]
    chosen = sorted(range(len(pull)), key=lambda c: -pull[c])[:2] if two_classes else range(len(pull))
    points = [torch.cat([w[c] for c in chosen]) for w, _ in updates]

    def of_side(split, side):
        return [point for point, its_side in zip(points, split, strict=True) if its_side == side]

    def centre(split, side):
        return sum(of_side(split, side)) / split.count(side)

    def spread(split):
        return sum(float((p - centre(split, side)).square().sum()) for side in (0, 1) for p in of_side(split, side))

    best = min((split for split in product((0, 1), repeat=len(points)) if len(set(split)) == 2), key=spread)

    def dissimilarity(side):
        members = of_side(best, side)
        lowest = [min(float(p @ q / (p.norm() * q.norm())) for q in members) for p in members]
        return len(members) / len(points) * (1 - sum(lowest) / len(lowest))

    bad = min((0, 1), key=dissimilarity)
    return torch.stack([(p - centre(best, 1 - bad)).norm() - (p - centre(best, bad)).norm() for p in points])


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_it_agrees_with_a_slow_reading(seed):
    evidence = cnn_evidence(6, seed=seed)
    assert_close(RULES["lfighter"](evidence), read_slowly(evidence, "6"))


def test_of_two_classes_all_of_the_layer_is_clustered():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 2)).double()
    evidence = evidence_of(model, clients_near(model, 6, scale=0.5), torch.ones(2, 3, dtype=torch.float64))
    assert_close(RULES["lfighter"](evidence), read_slowly(evidence, "0", two_classes=False))


def test_it_finds_the_client_that_flips():
    suspicions = RULES["lfighter"](flipping_federation(flip=1))
    assert [k for k, value in enumerate(suspicions.tolist()) if value > 0] == [7]


def test_clients_that_are_alike_are_not_told_apart():
    evidence = cnn_evidence(4)
    one = evidence.record.clients["0"]
    for client in evidence.record.clients:
        evidence.record.clients[client] = copy.deepcopy(one)
    assert RULES["lfighter"](evidence).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("name", ["lfighter", "shapfed", "fltracer"])
@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Sequential(nn.Flatten(), nn.PReLU(2)), "has no linear layer"),
        (nn.Sequential(nn.Linear(2, 2)), "fewer numbers than classes"),
    ],
)
def test_they_read_a_last_layer_of_classes(name, model, message):
    evidence = evidence_of(model, clients_near(model, 4), torch.ones(1, 2))
    evidence = replace(evidence, predicted=torch.tensor([2]))
    with pytest.raises(NotApplicableError, match=message):
        RULES[name](evidence)


def test_two_clients_are_not_divided():
    with pytest.raises(NotApplicableError, match="needs at least 3, this round has 2"):
        RULES["lfighter"](cnn_evidence(2))
