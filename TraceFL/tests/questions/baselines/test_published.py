"""The published formula as a rule."""

import torch
from torch import nn
from torch.testing import assert_close

from tests.helpers.configuration import compose_settings
from tests.helpers.evidence import evidence_of
from tracefl.questions.baselines.published import ARTIFACT, artifact


def test_it_is_the_preset():
    assert compose_settings("provenance=artifact").provenance.method == ARTIFACT


def test_by_hand_on_two_layers():
    # Both layers of every client are diagonal and no ReLU cuts: input (1, 2). Client a: diag(1, 1) then diag(1, 1);
    # b: diag(3, 3) then diag(1, 3). The average is diag(2, 2) then diag(1, 2): outputs (2, 4), then logits (2, 8).
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 2, bias=False)).double()

    def client(first, second):
        return {"0.weight": torch.eye(2).double() * first, "2.weight": torch.diag(torch.tensor(second)).double()}

    clients = {"a": client(1.0, [1.0, 1.0]), "b": client(3.0, [1.0, 3.0])}
    inputs = torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    # Logit 1 is predicted. Last layer: input 4, so 4 w = 4 for a, 12 for b. First layer: input 2, gradient 2, so
    # 4 w = 4 and 12, times 0.9 for being one layer further from the output.
    expected = torch.tensor([[4 + 0.9 * 4, 12 + 0.9 * 12]], dtype=torch.float64)
    assert_close(artifact(evidence_of(model, clients, inputs)), expected)
