"""One explained prediction, on a linear model whose answers are known by hand."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from tracefl.provenance import Method, RoundRecord, attribute_round, explain, passes, removal_effects

A = {"weight": torch.tensor([[1.0, 0.0], [0.0, 1.0]])}
B = {"weight": torch.tensor([[3.0, 0.0], [1.0, 0.0]])}
X = torch.tensor([[1.0, 2.0]])  # logits (1, 2) with client a alone, (3, 1) with b alone


def round_of(clients, weights=None):
    weights = weights or {k: 1 / len(clients) for k in clients}
    average = {name: sum(weights[k] * clients[k][name] for k in clients) for name in next(iter(clients.values()))}
    model = nn.Linear(*reversed(average["weight"].shape), bias=False)
    model.load_state_dict(average)
    return model, RoundRecord(4, clients, weights, average, average)


def test_by_hand():
    # The average gives (2, 1.5), so class 0, 0.25 above the mean of both logits; a alone gives -0.5, b alone 1.
    # With p / (1 - p) = 1, a contributes -0.5 - 0.25 and b 1 - 0.25. Class 0 leads by 0.5; a alone by -1, b alone by 2.
    model, record = round_of({"a": A, "b": B})
    found = explain(model, record, X, against=1, label_counts=torch.tensor([[0, 5], [7, 0]]))
    assert (found.server_round, found.predicted, found.against, found.lead) == (4, 0, 1, 0.5)
    assert found.probability == pytest.approx(1 / (1 + math.exp(-0.5)))
    assert sum(found.probabilities) == pytest.approx(1)
    assert found.holders_fraction == 0.5
    first, second = found.clients
    assert (first.client_id, first.weight, first.contribution, first.held, first.against) == ("b", 0.5, 0.75, 7, 1.5)
    assert (second.client_id, second.contribution, second.held, second.against) == ("a", -0.75, 0, -1.5)
    assert first.score == pytest.approx(1 / (1 + math.exp(-1.5)))
    assert (found.layers, first.by_layer) == (("",), (0.75,))
    # Without b there is a alone: class 1, and class 0 has the probability 1 / (1 + e).
    assert (first.removal.effect, first.removal.against_effect, first.removal.predicted) == (0.75, 1.5, 1)
    assert first.removal.probability == pytest.approx(1 / (1 + math.e))
    assert (second.removal.effect, second.removal.predicted) == (-0.75, 0)


def test_of_what_is_not_known_nothing_is_said():
    model, record = round_of({"a": A, "b": B})
    found = explain(model, record, X, Method(verify=0), checked=1)
    assert (found.against, found.lead, found.holders_fraction) == (None, None, None)
    assert [c.held for c in found.clients] == [c.against for c in found.clients] == [None, None]
    assert found.clients[0].removal.against_effect is None
    assert found.clients[1].removal is None


def test_against_the_runner_up_is_the_margin_and_effects_are_the_exact_ones():
    torch.manual_seed(0)
    clients = {k: {"weight": torch.randn(5, 3)} for k in "abcd"}
    model, record = round_of(clients, {"a": 0.4, "b": 0.3, "c": 0.2, "d": 0.1})
    x = torch.randn(1, 3)
    runner_up = int(model(x)[0].topk(2).indices[1])
    found = explain(model, record, x, against=runner_up, checked=4)
    margin = attribute_round(model, record, x, torch.tensor([0]), Method(target="margin"))
    plain = attribute_round(model, record, x, torch.tensor([0]), Method())
    effects = removal_effects(model, record, x)
    ids = list(clients)
    assert [c.client_id for c in found.clients] == [k for k, _ in plain.ranking(0)]
    for client in found.clients:
        k = ids.index(client.client_id)
        assert client.against == pytest.approx(float(margin.contributions[0, k]), rel=1e-5)
        assert client.removal.effect == pytest.approx(float(effects[0, k]), abs=1e-12)
        assert sum(client.by_layer) == pytest.approx(client.estimate, rel=1e-6)


@pytest.mark.parametrize("method", [Method(verify=2), Method(target="label"), Method(target="margin", layer_decay=0.9)])
def test_three_targets_of_one_forward_are_to_the_bit_those_of_three(method, monkeypatch):
    torch.manual_seed(0)
    clients = {k: {"weight": torch.randn(5, 3)} for k in "abcd"}
    model, record = round_of(clients, {"a": 0.4, "b": 0.3, "c": 0.2, "d": 0.1})
    x, label, estimate = torch.randn(1, 3), torch.tensor([3]), replace(method, verify=0)
    whole = attribute_round(model, record, x, label, estimate, by_layer=True)
    predicted, other = int(whole.predicted), (int(whole.predicted) + 1) % 5
    of_class = replace(estimate, target="label")
    sides = [attribute_round(model, record, x, torch.tensor([c]), of_class).contributions for c in (predicted, other)]
    forwards = []
    run_forward = passes.run_forward
    monkeypatch.setattr(passes, "run_forward", lambda *args: forwards.append(1) or run_forward(*args))
    found = explain(model, record, x, method, label=3, against=other)
    assert len(forwards) == 1
    for client in found.clients:
        k = list(clients).index(client.client_id)
        assert client.estimate == float(whole.contributions[0, k])
        assert client.by_layer == tuple(whole.by_layer[0, k].tolist())
        estimated = float(sides[0][0, k].double() - sides[1][0, k].double())
        assert client.against == (client.removal.against_effect if client.is_exact else estimated)


def test_one_client_is_the_whole_average():
    model, record = round_of({"a": A})
    found = explain(model, record, X)
    assert [(c.client_id, c.score, c.removal) for c in found.clients] == [("a", 1.0, None)]


def test_the_label_as_target():
    model, record = round_of({"a": A, "b": B})
    found = explain(model, record, X, Method(target="label"), label=1)
    assert {c.client_id: c.contribution for c in found.clients} == {"a": 0.5, "b": -0.5}  # 2 and 1 against 1.5


@pytest.mark.parametrize(
    ("inputs", "options", "words"),
    [
        (X.repeat(2, 1), {}, "one input is explained at a time, got 2"),
        (X, {"against": 2}, "there is no class 2: the model has classes 0 to 1"),
        (X, {"against": 0}, "class 0 is the predicted one"),
        (X, {"method": Method(target="label")}, "the input's label is not known"),
    ],
)
def test_bad_questions(inputs, options, words):
    model, record = round_of({"a": A, "b": B})
    with pytest.raises(ValueError, match=words):
        explain(model, record, inputs, **options)


def test_a_removal_that_cannot_be_had_is_said_with_who_prevents_it(caplog):
    """The average variance is 1; without client b, which holds that of client c in check, it is negative."""
    model = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 2)).eval()
    clients = {}
    for k, variance in {"a": 1.0, "b": 5.0, "c": -3.0}.items():
        clients[k] = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        clients[k]["0.running_var"].fill_(variance)
    record = RoundRecord(1, clients, {"a": 0.5, "b": 0.25, "c": 0.25}, model.state_dict(), model.state_dict())
    found = explain(model, record, X, Method(verify=0))
    assert {c.client_id: c.removal is None for c in found.clients} == {"a": False, "b": True, "c": False}
    words = "not checked: without client b the model gives logits that are not finite, because of client c"
    assert words in caplog.messages


def many(seed, count=6):
    """A round of clients of equal weight, and an input of which few are left out."""
    torch.manual_seed(seed)
    return round_of({str(k): {"weight": torch.randn(5, 3)} for k in range(count)}), torch.randn(1, 3)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("method", [Method.artifact(), Method.paper(), Method.unlike(), Method(verify=0), Method()])
def test_no_exact_effect_contradicts_a_place_without_a_word(method, seed):
    (model, record), x = many(seed)
    found = explain(model, record, x, method)
    exact = dict(zip(record.clients, removal_effects(model, record, x)[0].tolist(), strict=True))
    ids = [client.client_id for client in found.clients]
    known = [client.client_id for client in found.clients if client.removal is not None]
    late = {a for a in known for b in known if ids.index(a) < ids.index(b) and exact[a] < exact[b] - 1e-5}
    if ids[0] in known and exact[ids[0]] <= 1e-5 and found.responsible is not None:
        late.add(ids[0])
    assert set(found.contradicted) == late
    assert (found.caveat is not None) == bool(late)
    for text in (str(found), found._repr_html_()):
        assert (" *" in text) == ("* " in text) == bool(late)
    shown = {client.client: client for client in found._shown().clients}
    for client in found.clients:  # one unit in a column: contributions, or exact effects throughout
        expected = exact[client.client_id] if found.is_settled else client.contribution
        assert shown[client.client_id].contribution == pytest.approx(expected, abs=1e-5)


def test_the_seeds_above_hold_contradictions():
    said = [explain(*round_, x, Method.artifact()).caveat or "" for round_, x in map(many, range(6))]
    assert any("comes before" in words for words in said)
    assert "" in said


def test_where_exact_effects_order_the_clients_contributions_may_not_and_that_is_said():
    (model, record), x = many(0, count=3)
    found = explain(model, record, x, Method.artifact())
    assert found.is_settled
    assert found.contradicted == ()
    assert not found.is_in_order
    assert found.caveat == "the order is that of the exact effects; contributions order the clients otherwise"
    assert all(client.score is None for client in found._shown().clients)


@pytest.mark.parametrize(("method", "exact"), [(Method(), True), (Method(verify=0), False), (Method.unlike(), False)])
def test_what_a_client_adds_to_a_lead_is_exact_where_its_contribution_is(method, exact):
    """A model that is not linear: leaving a client out changes the lead otherwise than to first order."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 4))
    clients = {k: {n: w + torch.randn_like(w) for n, w in model.state_dict().items()} for k in "abc"}
    average = {n: sum(clients[k][n] for k in clients) / 3 for n in clients["a"]}
    x = torch.randn(1, 3)
    logits = torch.func.functional_call(model, average, (x,))[0].detach()
    predicted, other = logits.topk(2).indices.tolist()
    found = explain(
        model, RoundRecord(1, clients, dict.fromkeys("abc", 1 / 3), average, average), x, method, against=other
    )
    assert found.is_exact == exact
    for client in found.clients:
        rest = {n: sum(clients[k][n] for k in clients if k != client.client_id) / 2 for n in average}
        without = torch.func.functional_call(model, rest, (x,))[0].detach()
        falls = float((logits - without)[predicted] - (logits - without)[other])
        assert client.removal.against_effect == pytest.approx(falls, abs=1e-4)
        assert (client.against == pytest.approx(falls, abs=1e-4)) == exact
