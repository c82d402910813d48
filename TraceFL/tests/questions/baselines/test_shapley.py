"""The rules of Shapley values and of removal are the library's own; where they do not apply they say so."""

import pytest
import torch

from tests.helpers.evidence import cnn_evidence
from tracefl.provenance import exact_shapley, removal_effects
from tracefl.questions.baselines import RULES, NotApplicableError

shapley, removal = RULES["shapley"], RULES["removal"]


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
