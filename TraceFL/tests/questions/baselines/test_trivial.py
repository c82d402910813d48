"""The trivial rules, and what holds for every rule."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from tests.helpers.evidence import average, cnn_evidence, evidence_of, with_history
from tests.helpers.models import model_and_inputs
from tracefl.provenance import RoundRecord, score_suspicions
from tracefl.questions.baselines import RULES, Evidence, NotApplicableError

OF_EACH_INPUT = {"artifact", "flforensics", "shapley", "removal", "own_logit", "last_bias"}


def test_own_logit_is_the_client_s_model_run():
    evidence = cnn_evidence(4)
    expected = []
    for weights in evidence.record.clients.values():
        own = copy.deepcopy(evidence.model)
        own.load_state_dict(weights)
        expected.append(own(evidence.inputs)[torch.arange(3), evidence.predicted].detach())
    assert_close(RULES["own_logit"](evidence), torch.stack(expected, dim=1))


def test_last_bias_by_hand():
    model = nn.Sequential(nn.Linear(2, 4), nn.Linear(4, 3))
    biases = {"a": [1.0, 2.0, 3.0], "b": [6.0, 5.0, 4.0]}
    state = model.state_dict()
    clients = {k: {**state, "1.bias": torch.tensor(bias)} for k, bias in biases.items()}
    evidence = replace(evidence_of(model, clients, torch.ones(2, 2)), predicted=torch.tensor([2, 0]))
    assert RULES["last_bias"](evidence).tolist() == [[3, 4], [1, 6]]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2, bias=False)), "this model's '1' has none"),
        (nn.Sequential(nn.Flatten()), "no linear layer"),
        (nn.Sequential(nn.Linear(2, 1), nn.Linear(1, 1)), "fewer numbers than classes"),
    ],
)
def test_last_bias_does_not_apply(model, message):
    state = model.state_dict()
    evidence = evidence_of(model, {"a": state, "b": state}, torch.ones(1, 2))
    with pytest.raises(NotApplicableError, match=message):
        RULES["last_bias"](replace(evidence, predicted=torch.tensor([1])))


def test_most_examples_and_random():
    p = {"0": 0.2, "1": 0.5, "2": 0.3}
    evidence = cnn_evidence(3, p=p)
    assert RULES["most_examples"](evidence).tolist() == [0.2, 0.5, 0.3]
    found = score_suspicions(RULES["random"](evidence), torch.tensor([False, True, False]))
    assert (found.localization_accuracy, found.mean_rank, found.auroc) == (
        pytest.approx(1 / 3),
        2,
        0.5,
    )  # no luck in it


@pytest.mark.parametrize("name", RULES)
def test_every_rule_answers_in_one_way_and_changes_nothing(name):
    evidence = with_history(cnn_evidence(5))
    before, record = copy.deepcopy((evidence.model.state_dict(), evidence.record))
    suspicions = RULES[name](evidence)
    assert suspicions.shape == ((3, 5) if name in OF_EACH_INPUT else (5,))
    assert suspicions.dtype == torch.float64
    assert suspicions.device.type == "cpu"
    assert suspicions.isfinite().all()
    assert all(torch.equal(before[n], t) for n, t in evidence.model.state_dict().items())
    for client_id, weights in record.clients.items():
        assert all(torch.equal(evidence.record.clients[client_id][n], t) for n, t in weights.items())
    assert all(torch.equal(evidence.record.previous_global[n], t) for n, t in record.previous_global.items())
    assert torch.equal(suspicions, RULES[name](evidence))


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("family", ["gpt", "bert"])
def test_every_rule_takes_a_text_model_or_says_why_not(name, family):
    from tests.helpers.models import clients_near

    model, inputs = model_and_inputs(family)
    clients = clients_near(model, 4)
    start = {n: t.clone() for n, t in model.state_dict().items()}
    p = dict.fromkeys(clients, 0.25)
    record = RoundRecord(1, clients, p, start, average(clients, p))
    evidence = with_history(Evidence(record, model, inputs, torch.tensor([0, 1, 2]), seed=0))
    if name == "feddebug" or (name == "last_bias" and family == "gpt"):
        with pytest.raises(NotApplicableError):
            RULES[name](evidence)
    else:
        assert RULES[name](evidence).isfinite().all()


def test_evidence_tells_of_one_fault_at_least():
    with pytest.raises(ValueError, match="num_faults=0"):
        cnn_evidence(num_faults=0)
