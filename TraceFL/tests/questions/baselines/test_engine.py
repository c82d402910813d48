"""The rules that the engine answers: by hand, or its own answers; where they do not apply they say so."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from tests.helpers.configuration import compose_settings
from tests.helpers.evidence import cnn_evidence, evidence_of
from tracefl.provenance import exact_shapley, removal_effects
from tracefl.questions.baselines import RULES, NotApplicableError
from tracefl.questions.baselines.engine import ARTIFACT, artifact, removal, shapley


def test_artifact_is_the_preset():
    assert compose_settings("provenance=artifact").provenance.method == ARTIFACT


def test_artifact_by_hand_on_two_layers():
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


def test_shapley_is_the_library_s_own():
    evidence = cnn_evidence(4)
    found = exact_shapley(evidence.model, evidence.record, evidence.inputs, evidence.predicted)
    assert torch.equal(shapley(evidence), found.values)
    with pytest.raises(NotApplicableError, match="up to 10 clients, this round has 11"):
        shapley(cnn_evidence(11))


def test_removal_is_the_library_s_own():
    evidence = cnn_evidence(4)
    assert torch.equal(removal(evidence), removal_effects(evidence.model, evidence.record, evidence.inputs))
    with pytest.raises(NotApplicableError, match="at least 2 clients"):
        removal(cnn_evidence(1))


@pytest.mark.parametrize("rule", ["shapley", "removal", "own_logit"])
def test_logits_that_are_not_finite(rule):
    evidence = cnn_evidence(3)
    evidence.record.clients["1"]["6.bias"].fill_(torch.inf)
    with pytest.raises(NotApplicableError, match="not finite"):
        RULES[rule](evidence)


def test_a_warning_names_the_rule():
    with pytest.warns(UserWarning, match="^the rule artifact: not traced: 1 BatchNorm2d") as caught:
        artifact(cnn_evidence(5))
    assert "also=" not in str(caught[0].message)
