"""Which methods a client games by a constant on all its logits, and that just these say so."""

import warnings
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from tests.helpers.models import clients_near
from tracefl.provenance import Method, RoundRecord, attribute, attribute_round, explain, who

METHODS = {
    "removal": Method(),
    "verify=0": Method(verify=0),
    "leave_one_out": Method.leave_one_out(),
    "artifact": Method.artifact(),
    "paper": Method.paper(),
    "unlike": Method.unlike(),
    "margin": replace(Method.artifact(), target="margin"),
    "label": replace(Method.artifact(), target="label"),
    "predicted removal": Method(target="predicted"),
}
GAMED = {"artifact", "paper", "label", "predicted removal"}
X, LABELS = torch.linspace(-1, 1, 24, dtype=torch.float64).reshape(6, 4), torch.arange(6) % 3


def round_of(shift):
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)).double().eval()
    start = {n: t.clone() for n, t in model.state_dict().items()}
    clients = clients_near(model, 4, scale=0.1)
    clients["2"]["2.bias"] = clients["2"]["2.bias"] + shift
    average = {n: torch.stack([weights[n] for weights in clients.values()]).mean(dim=0) for n in start}
    return model, RoundRecord(1, clients, dict.fromkeys(clients, 0.25), start, average)


def test_an_answer_says_so_in_its_notes():
    model, record = round_of(0.0)
    for method in METHODS.values():
        answer, words = said(lambda: who(model, record.clients, X, [1] * 4, labels=LABELS, method=method))  # noqa: B023
        assert words == []
        assert [note for note in answer.notes if "adds a constant" in note] == [method.weakness] * bool(method.weakness)


def said(ask):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = ask()
    return found, [str(each.message) for each in caught if "adds a constant" in str(each.message)]


@pytest.mark.parametrize("name", METHODS)
def test_a_method_that_a_constant_games_says_so_and_no_other(name):
    method = METHODS[name]
    ranks = []
    for shift in (0.0, -100.0):
        model, record = round_of(shift)
        found, words = said(lambda: attribute_round(model, record, X, LABELS, method))  # noqa: B023
        assert words == ([method.weakness] if name in GAMED else [])
        ranks.append(found.contributions - found.contributions.mean(dim=1, keepdim=True))
        assert len(said(lambda: explain(model, record, X[:1], method, label=0))[1]) == (name in GAMED)  # noqa: B023
    if name in GAMED:
        assert (ranks[1].argmin(dim=1) == 2).all()
    else:
        assert_close(*ranks)
    assert bool(method.weakness) == (name in GAMED)


@pytest.mark.parametrize(
    ("target", "times"), [("predicted", 1), (LABELS, 1), ("centered", 0), ("margin", 0), ("all", 0)]
)
def test_the_librarys_attribute_says_so_too(target, times):
    model, record = round_of(0.0)
    assert len(said(lambda: attribute(model, record.clients, X, p=record.client_weights, target=target))[1]) == times
