"""Where an estimate is in doubt everybody is left out exactly, so that nobody hides behind it; else nobody pays."""

import pytest
import torch
from torch import nn

from tests.helpers.models import clients_near
from tracefl.provenance import Method, RoundRecord, attribute_round, who
from tracefl.provenance.budget import Proofs
from tracefl.provenance.norms import farthest
from tracefl.provenance.verification import ExactRemovals, verified

UNDOUBTED = Method(max_update_norm=None, max_estimate_error=None)
HIDDEN = "5"


def network():
    """Return a network whose one hidden unit speaks against class 0."""
    model = nn.Sequential(nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 3)).double().eval()
    weights = {"0.weight": [[1.0]], "0.bias": [0.0], "2.weight": [[-5.0], [0.0], [0.0]], "2.bias": [1.0, 0.0, 0.0]}
    model.load_state_dict({n: torch.tensor(w, dtype=torch.float64) for n, w in weights.items()})
    return model


def hidden_round(count=12):
    """Return a round in which one client switches that unit off for all: where it is off, it has no derivative.

    The others differ in class 0's bias alone, so that there are some with larger estimates.
    """
    model = network()
    start = {n: t.clone() for n, t in model.state_dict().items()}
    clients = {str(k): {n: t.clone() for n, t in start.items()} for k in range(count)}
    for k, weights in enumerate(clients.values()):
        weights["2.bias"][0] += 0.1 + 0.01 * k
    clients[HIDDEN]["0.bias"] -= 100
    clients[HIDDEN]["2.bias"][0] -= 0.5
    p = dict.fromkeys(clients, 1 / count)
    average = {n: torch.stack([weights[n] for weights in clients.values()]).mean(dim=0) for n in start}
    return model, RoundRecord(1, clients, p, start, average)


INPUTS = torch.linspace(0.5, 1.5, 8, dtype=torch.float64).unsqueeze(1)


@pytest.mark.parametrize(("count", "verify"), [(12, None), (30, None), (6, 1), (6, 3)])
def test_a_client_that_the_estimate_hides_is_named(count, verify):
    model, record = hidden_round(count)
    off = Method(verify=verify, max_update_norm=None, max_estimate_error=None)
    unaware = attribute_round(model, record, INPUTS, method=off)
    assert HIDDEN not in unaware.responsible
    assert not unaware.verified[:, int(HIDDEN)].any()
    assert unaware.doubt == ""
    found = attribute_round(model, record, INPUTS, method=Method(verify=verify))
    assert set(found.responsible) == {HIDDEN}
    assert found.verified.all()
    assert found.doubt.startswith(f"client {HIDDEN}'s update is ")


def test_so_it_is_where_the_weights_before_the_round_are_not_known():
    model, record = hidden_round()
    answer = who(model, record.clients, INPUTS, list(record.client_weights.values()))
    assert set(answer.responsible) == {HIDDEN}
    (note,) = (note for note in answer.notes if "exactly" in note)
    assert note == f"all clients were left out exactly: {answer.attribution.doubt}"
    assert f"client {HIDDEN}'s update is " in note


def near_round(count=13, scale=0.1):
    torch.manual_seed(3)
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5))
    model = model.double().eval()
    clients = clients_near(model, count, scale=scale)
    start = {n: t.clone() for n, t in model.state_dict().items()}
    average = {
        n: torch.stack([weights[n] for weights in clients.values()]).mean(dim=0) if t.is_floating_point() else t
        for n, t in start.items()
    }
    record = RoundRecord(1, clients, dict.fromkeys(clients, 1 / count), start, average)
    return model, record, torch.randn(6, 2, 6, 6, dtype=torch.float64)


@pytest.mark.parametrize("verify", [None, 1])
def test_rounds_without_an_outlier_pay_no_removal_more(verify, monkeypatch):
    model, record, x = near_round()
    left_out = []
    find = ExactRemovals.find

    def counted(self, wanted):
        left_out[-1] += int((wanted & ~self.known).sum())
        find(self, wanted)

    monkeypatch.setattr(ExactRemovals, "find", counted)
    off = Method(verify=verify, max_update_norm=None, max_estimate_error=None)
    for method in (off, Method(verify=verify)):
        left_out.append(0)
        assert attribute_round(model, record, x, method=method).doubt == ""
    assert left_out[0] == left_out[1] < 6 * 13


def test_estimates_that_miss_what_is_found_are_not_gone_by():
    model, record, x = near_round()
    estimate = attribute_round(model, record, x, method=Method(verify=0))
    off = verified(estimate, ExactRemovals(model, record, x), Proofs(1), UNDOUBTED)
    assert not off.verified.all()
    estimate.contributions.mul_(-3)
    found = verified(estimate, ExactRemovals(model, record, x), Proofs(1), Method(max_update_norm=None))
    assert found.verified.all()
    assert found.doubt.startswith("estimates miss the exact effects of those first left out, ")


def test_a_method_that_proves_nobody_is_never_in_doubt():
    model, record = hidden_round()
    for method in (Method(verify=0), Method.unlike(), Method.leave_one_out()):
        assert attribute_round(model, record, INPUTS, method=method).doubt == ""


def test_parameters_and_buffers_have_a_median_each():
    model, record, _ = near_round(count=4, scale=0.0)
    start = record.previous_global
    for k, (weight, mean) in enumerate([(1.0, 0.1), (2.0, 0.1), (2.0, 0.1), (5.0, 0.5)]):
        record.clients[str(k)]["1.weight"] = start["1.weight"] + weight
        record.clients[str(k)]["1.running_mean"] = start["1.running_mean"] + mean
    client, medians = farthest(model, record, 2.0)
    assert (client, medians) == ("3", pytest.approx(5.0))  # the buffers' 5 medians rather than the parameters' 2.5
    assert farthest(model, record, 5.0) is not None  # brought down to a bound of 5 is at it
    assert farthest(model, record, 5.1) is None


def test_two_clients_are_not_compared():
    model, record, _ = near_round(count=2)
    record.clients["1"]["1.weight"] += 1000
    assert farthest(model, record, 3.0) is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_update_norm": 0.5}, "max_update_norm must be at least 1 median or None, got 0.5"),
        ({"max_update_norm": float("nan")}, "max_update_norm must be at least 1 median or None, got nan"),
        ({"max_estimate_error": 0.0}, "max_estimate_error must be above 0 or None, got 0.0"),
    ],
)
def test_bounds_that_are_none(options, words):
    with pytest.raises(ValueError, match=words):
        Method(**options)
