"""ShapFed, by hand and against a slow reading."""

import torch
from torch import nn
from torch.testing import assert_close

from tests.helpers.evidence import cnn_evidence, evidence_of
from tests.helpers.federations import flipping_federation
from tracefl.questions.baselines import RULES


def test_it_agrees_with_a_slow_reading():
    p = {"0": 0.5, "1": 0.2, "2": 0.2, "3": 0.1}
    evidence = cnn_evidence(4, p=p)
    before, clients = evidence.record.previous_global, evidence.record.clients

    def row(client, c):
        parts = (clients[client][name][c] - before[name][c] for name in ("6.weight", "6.bias"))
        return torch.cat([part.reshape(-1) for part in parts])

    expected = []
    for client in clients:
        cosines = []
        for c in range(3):
            own, average = row(client, c), sum(p[k] * row(k, c) for k in clients)
            cosines.append(own @ average / (own.norm() * average.norm()))
        expected.append(1 - sum(cosines) / 3)
    assert_close(RULES["shapfed"](evidence), torch.stack(expected))


def test_by_hand():
    # One class of which the average update is (1, 0): the same, at a right angle, against it, none.
    model = nn.Linear(2, 1, bias=False).double()
    nn.init.zeros_(model.weight)
    rows = [[6.0, 0.0], [0.0, 2.0], [-2.0, 0.0], [0.0, -2.0], [0.0, 0.0]]
    clients = {str(k): {"weight": torch.tensor([row], dtype=torch.float64)} for k, row in enumerate(rows)}
    evidence = evidence_of(model, clients, torch.ones(2, 2, dtype=torch.float64))
    assert_close(RULES["shapfed"](evidence), torch.tensor([0.0, 1, 2, 1, 1], dtype=torch.float64))


def test_it_finds_the_client_that_flips():
    assert int(RULES["shapfed"](flipping_federation(flip=1)).argmax()) == 7
