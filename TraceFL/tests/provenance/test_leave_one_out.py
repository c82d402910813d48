"""The predictions without each client, against models that are built by averaging the others."""

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from tests.helpers.evidence import average, cnn_evidence
from tests.helpers.models import clients_near, model_and_inputs
from tracefl.errors import ModelMismatchError
from tracefl.provenance import Compute, RoundRecord, counterfactuals, removal_effects
from tracefl.provenance.leave_one_out import NO_CLASS

P = {"0": 0.5, "1": 0.3, "2": 0.2}


def round_of(model, noise=None):
    clients = clients_near(model)
    previous = {n: t.clone() for n, t in model.state_dict().items()}
    whole = average(clients, P)
    if noise is None:
        return RoundRecord(1, clients, P, previous, whole)
    return RoundRecord(1, clients, P, previous, {n: t + noise.get(n, 0) for n, t in whole.items()}, before_noise=whole)


def logits_of(model, weights, inputs):
    model.load_state_dict(weights)
    with torch.no_grad():
        out = model(**inputs) if isinstance(inputs, dict) else model(inputs)
    return getattr(out, "logits", out)


@pytest.mark.parametrize("with_noise", [False, True])
def test_agrees_with_building_each_model(family, with_noise):
    model, inputs = model_and_inputs(family, torch.float64)
    torch.manual_seed(5)
    noise = {n: 0.01 * torch.randn_like(p) for n, p in model.named_parameters()} if with_noise else None
    record = round_of(model, noise)
    found = counterfactuals(model, record, inputs, compute=Compute(batch_size=2))
    logits = logits_of(model, record.global_weights, inputs)
    assert_close(found.predicted, logits.argmax(dim=1))
    for i, c in enumerate(logits.argmax(dim=1).tolist()):
        assert_close(found.centered_logits[i], logits[i, c] - logits[i].mean())
        assert_close(found.probabilities[i], logits[i, c].exp() / logits[i].exp().sum())
    for k, left in enumerate(P):
        others = average(record.clients, {j: p for j, p in P.items() if j != left})
        left_out = logits_of(model, {n: t + (noise or {}).get(n, 0) for n, t in others.items()}, inputs)
        assert_close(found.predicted_without[:, k], left_out.argmax(dim=1))
        for i, c in enumerate(logits.argmax(dim=1).tolist()):
            centered = left_out[i, c] - left_out[i].mean()
            assert_close(found.centered_logits_without[i, k], centered)
            assert_close(found.effects[i, k], found.centered_logits[i] - centered)
            assert_close(found.probabilities_without[i, k], left_out[i, c].exp() / left_out[i].exp().sum())
    assert torch.equal(found.effects, removal_effects(model, record, inputs, compute=Compute(batch_size=2)))


def test_who_is_first_and_what_changes():
    evidence = cnn_evidence(4)
    found = counterfactuals(evidence.model, evidence.record, evidence.inputs)
    for i in range(3):
        assert found.first[i] == max(range(4), key=lambda k: found.effects[i, k])
        for k in range(4):
            assert found.changed[i, k] == (found.predicted_without[i, k] != found.predicted[i])
    assert found.measured.all()
    assert found.client_ids == ("0", "1", "2", "3")


def test_a_client_without_which_nothing_can_be_said():
    """The others' running variance is negative: NaN for that client alone, and it is never the first."""
    evidence = cnn_evidence(3)
    record = evidence.record
    name = "1.running_var"
    record.clients["0"][name].fill_(9.0)  # the average is 1, that of the other two -3
    for k in ("1", "2"):
        record.clients[k][name].fill_(-3.0)
    record = replace(record, global_weights=average(record.clients, record.client_weights))
    found = counterfactuals(evidence.model, record, evidence.inputs)
    assert found.measured.tolist() == [[False, True, True]] * 3
    for values in (found.effects, found.centered_logits_without, found.probabilities_without):
        assert values.isnan().tolist() == [[True, False, False]] * 3
    assert found.predicted_without[:, 0].tolist() == [NO_CLASS] * 3
    assert not found.changed[:, 0].any()
    assert 0 not in found.first.tolist()


def test_a_round_s_model_that_gives_no_finite_logits_is_refused():
    evidence = cnn_evidence(3)
    broken = {n: t * torch.nan if n == "6.bias" else t for n, t in evidence.record.global_weights.items()}
    with pytest.raises(ModelMismatchError, match="gives logits that are not finite: it holds .* in '6.bias'$"):
        counterfactuals(evidence.model, replace(evidence.record, global_weights=broken), evidence.inputs)


def test_a_client_that_is_the_whole_average():
    evidence = cnn_evidence(1)
    with pytest.raises(ValueError, match="no model without it"):
        counterfactuals(evidence.model, evidence.record, evidence.inputs)


def test_the_model_is_given_back_as_it_was():
    evidence = cnn_evidence(3)
    evidence.model.train()
    before = {n: t.clone() for n, t in evidence.model.state_dict().items()}
    counterfactuals(evidence.model, evidence.record, evidence.inputs)
    assert evidence.model.training
    assert_close(dict(evidence.model.state_dict()), before, rtol=0, atol=0)
