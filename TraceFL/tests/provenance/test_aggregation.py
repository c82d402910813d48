"""Robust rules: each beside a slow reading of its definition, and beside Flower's own; answers by aggregating again."""

import copy
import itertools
from dataclasses import replace

import pytest
import torch
from torch import nn

from tracefl.errors import RecordError
from tracefl.provenance import (
    Aggregation,
    Method,
    RoundRecord,
    attribute_round,
    counterfactuals,
    exact_shapley,
    explain,
    weights_without,
)
from tracefl.provenance.comparison import compare, compare_whole
from tracefl.provenance.reading import read_round
from tracefl.provenance.verification import ExactRemovals

RULES = [
    Aggregation("krum", malicious=1),
    Aggregation("krum", malicious=2, selected=3),
    Aggregation("bulyan", malicious=1),
    Aggregation("bulyan"),
    Aggregation("trimmed_mean", cut=0.2),
    Aggregation("trimmed_mean"),
    Aggregation("median"),
]
SHARES = {str(k): share for k, share in enumerate([0.1, 0.3, 0.05, 0.15, 0.1, 0.05, 0.05, 0.2])}


def vectors(count=8, size=5, seed=0):
    """Return clients of one tensor, the last of them far away."""
    drawn = torch.randn(count, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    drawn[-1] += 20
    return {str(k): {"w": each} for k, each in enumerate(drawn)}


def by_hand(rule, clients, shares):
    """Aggregate as the papers say, number by number."""
    points = {k: state["w"].tolist() for k, state in clients.items()}

    def score(k):
        squares = sorted(sum((a - b) ** 2 for a, b in zip(points[k], points[j], strict=True)) for j in points if j != k)
        return sum(squares[: max(1, len(points) - rule.malicious - 2)])

    closest = sorted(points, key=score)
    if rule.rule == "krum":
        chosen = closest[: rule.selected]
        total = sum(shares[k] for k in chosen)
        return [sum(points[k][i] * shares[k] for k in chosen) / total for i in range(len(points["0"]))]
    if rule.rule == "bulyan":
        points = {k: points[k] for k in closest[: len(points) - 2 * rule.malicious]}
    made = []
    for values in zip(*points.values(), strict=True):
        ordered, count = sorted(values), len(values)
        median = (ordered[(count - 1) // 2] + ordered[count // 2]) / 2
        if rule.rule == "median":
            kept = [median]
        elif rule.rule == "trimmed_mean":
            cut = int(rule.cut * count)
            kept = ordered[cut : count - cut]
        else:
            kept = sorted(values, key=lambda value: abs(value - median))[: count - 2 * rule.malicious]
        made.append(sum(kept) / len(kept))
    return made


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("count", [7, 8])
def test_a_rule_is_its_definition(rule, count):
    clients = vectors(count)
    made = rule.aggregate(clients, SHARES, {"w": clients["0"]["w"]})["w"]
    assert made.tolist() == pytest.approx(by_hand(rule, clients, SHARES), abs=1e-12)
    assert (rule.rule == "trimmed_mean" and not rule.cut) or made.abs().max() < 5  # the far one has no say


def test_two_clients_that_are_each_other_s_nearest_are_a_tie_that_the_first_wins():
    clients = {k: {"w": torch.tensor([value])} for k, value in (("0", 5.0), ("1", 1.1), ("2", 1.0))}
    made = Aggregation("krum").aggregate(clients, dict.fromkeys(clients, 1), clients["0"])
    assert made["w"].item() == pytest.approx(1.1)


@pytest.mark.parametrize("rule", [Aggregation("krum", malicious=1, selected=2), Aggregation("bulyan", malicious=1)])
@pytest.mark.parametrize("far", [1e6, 1e10, 1e30, 1e150])
@pytest.mark.parametrize("place", ["0", "1", "7"])
def test_a_client_that_is_far_from_all_others_does_not_blur_who_is_near(rule, far, place):
    for seed in range(5):
        clients = vectors(seed=seed) | {place: {"w": torch.full((5,), far, dtype=torch.float64)}}
        made = rule.aggregate(clients, SHARES, {"w": clients["0"]["w"]})["w"]
        assert made.tolist() == pytest.approx(by_hand(rule, clients, SHARES), rel=1e-9)


def test_a_client_that_is_far_from_all_others_does_not_blur_whether_a_model_is_the_rule_s():
    model, record = round_of(Aggregation("krum", malicious=1, selected=3))
    clients = {**record.clients, "7": {n: torch.full_like(w, 1e8) for n, w in record.clients["7"].items()}}
    floating = {n: w for n, w in record.global_weights.items() if w.is_floating_point()}
    made = record.aggregation.aggregate(clients, record.client_weights, floating)
    made = {n: made[n].to(w) if n in made else w for n, w in record.global_weights.items()}
    right = replace(record, clients=clients, global_weights=made)
    assert compare_whole(read_round(model, right)).refusal is None
    assert (
        "is not what median makes"
        in compare_whole(read_round(model, replace(right, aggregation=Aggregation("median")))).refusal
    )
    wrong = {n: w + 0.01 if w.is_floating_point() else w for n, w in made.items()}
    assert "is not what krum makes" in compare_whole(read_round(model, replace(right, global_weights=wrong))).refusal


def test_fewer_clients_than_a_rule_is_robust_for_make_no_model():
    fewest = {
        Aggregation("krum", malicious=1): 4,
        Aggregation("krum", malicious=1, selected=6): 6,
        Aggregation("bulyan", malicious=1): 7,
        Aggregation("trimmed_mean", cut=0.2): 5,  # of four it would leave out none
        Aggregation("trimmed_mean"): 1,
        Aggregation("median"): 1,
    }
    for rule, least in fewest.items():
        assert rule.fewest == least
        some = dict(list(vectors().items())[: least - 1])
        with pytest.raises(RecordError, match=f"at least {least} clients, got {least - 1}"):
            rule.aggregate(some, SHARES, {"w": torch.zeros(5)})


def test_a_rule_that_weighs_nobody_counts_a_client_of_weight_0():
    model, record = round_of(Aggregation("median"))
    weights = {**record.client_weights, "0": 0.0, "1": record.client_weights["0"] + record.client_weights["1"]}
    inputs = torch.randn(2, 6, generator=torch.Generator().manual_seed(2))
    expected = attribute_round(model, record, inputs).contributions
    assert torch.equal(attribute_round(model, replace(record, client_weights=weights), inputs).contributions, expected)


def test_a_client_that_is_not_in_the_round_cannot_be_left_out():
    _, record = round_of(Aggregation("median"))
    with pytest.raises(KeyError):
        weights_without(record, 0)


@pytest.mark.parametrize(
    ("numbers", "words"),
    [({"malicious": -1}, "-1"), ({"selected": 0}, "0"), ({"cut": 0.5}, "0.5"), ({"cut": float("nan")}, "nan")],
)
def test_numbers_out_of_range_are_refused(numbers, words):
    with pytest.raises(ValueError, match=f"got .*{words}"):
        Aggregation("krum", **numbers)
    with pytest.raises(ValueError, match="rule must be krum"):
        Aggregation("mean")


def small_model():
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


def round_of(rule, count=8, seed=1):
    """Return a model and a round that the rule aggregated."""
    torch.manual_seed(seed)
    model = small_model()
    start = copy.deepcopy(model.state_dict())
    clients = {
        str(k): {
            name: w + 0.3 * torch.rand_like(w) * (k + 1) ** 0.5 if w.is_floating_point() else w
            for name, w in start.items()
        }
        for k in range(count)
    }
    shares = {k: SHARES[k] for k in clients}
    total = sum(shares.values())
    shares = {k: share / total for k, share in shares.items()}
    made = rule.aggregate(clients, shares, {n: w for n, w in start.items() if w.is_floating_point()})
    made = {name: made[name].to(w) if name in made else w for name, w in start.items()}
    return model, RoundRecord(1, clients, shares, start, made, aggregation=rule)


def logits(model, weights, inputs):
    asked = copy.deepcopy(model).double().eval()
    asked.load_state_dict(weights)
    with torch.no_grad():
        found = asked(inputs.double())
    return found - found.mean(dim=1, keepdim=True)


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_an_answer_is_what_the_rule_makes_of_the_others(rule):
    model, record = round_of(rule)
    inputs = torch.randn(4, 6, generator=torch.Generator().manual_seed(2))
    found = attribute_round(model, record, inputs)  # whatever the number of clients
    assert bool(found.verified.all())
    everyone = logits(model, record.global_weights, inputs)
    rows = torch.arange(4)
    predicted = everyone.argmax(dim=1)
    for column, client in enumerate(record.clients):
        others = {k: state for k, state in record.clients.items() if k != client}
        like = {n: w for n, w in record.global_weights.items() if w.is_floating_point()}
        again = rule.aggregate(others, record.client_weights, like)
        without = {n: again[n].to(w) if n in again else w for n, w in record.global_weights.items()}
        assert all(torch.equal(weights_without(record, client)[n], without[n]) for n in without)
        lost = everyone[rows, predicted] - logits(model, without, inputs)[rows, predicted]
        assert found.contributions[:, column].tolist() == pytest.approx(lost.tolist(), abs=1e-4)
    torch.testing.assert_close(counterfactuals(model, record, inputs).effects.float(), found.contributions)


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_one_prediction_is_explained_by_exact_removals_and_without_layers(rule):
    model, record = round_of(rule)
    x = torch.randn(1, 6, generator=torch.Generator().manual_seed(2))
    whole = logits(model, record.global_weights, x)[0]
    predicted, other = (int(c) for c in whole.topk(2).indices)
    found = explain(model, record, x, against=other, checked=1)
    assert (found.layers, {c.by_layer for c in found.clients}, {c.estimate for c in found.clients}) == (
        (),
        {()},
        {None},
    )
    assert found.is_settled
    assert found.is_in_order
    for client in found.clients:
        without = logits(model, weights_without(record, client.client_id), x)[0]
        assert client.contribution == pytest.approx(float(whole[predicted] - without[predicted]), abs=1e-5)
        lead = float((whole - without)[predicted] - (whole - without)[other])
        assert client.against == client.removal.against_effect == pytest.approx(lead, abs=1e-5)


def test_krum_chooses_anew_among_the_others():
    points = {"0": 0.0, "1": 0.1, "2": 0.5, "3": 0.55, "4": 1.0}
    rule = Aggregation("krum", malicious=1)
    for left in itertools.combinations(points, 4):
        clients = {k: {"w": torch.tensor([points[k]])} for k in left}
        shares = dict.fromkeys(clients, 0.25)
        assert rule.aggregate(clients, shares, clients[left[0]])["w"].tolist() == pytest.approx(
            by_hand(rule, {str(i): clients[k] for i, k in enumerate(left)}, dict.fromkeys("0123", 0.25))
        )


@pytest.mark.parametrize("asked", [Method.artifact(), Method.paper(), Method.unlike()], ids=str)
def test_what_is_defined_by_an_average_is_refused(asked):
    model, record = round_of(Aggregation("median"))
    with pytest.raises(RecordError, match="aggregated by median.*leave_one_out"):
        attribute_round(model, record, torch.randn(2, 6), method=asked)
    with pytest.raises(RecordError, match="Shapley values cannot be told"):
        exact_shapley(model, record, torch.randn(2, 6), torch.tensor([0, 1]))
    with pytest.raises(RecordError, match="leave one of them out"):
        read_round(model, replace(record, server_step=0.5))


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_a_model_that_the_rule_did_not_make_is_refused(rule):
    model, record = round_of(rule)
    assert compare(read_round(model, record)).refusal is None
    found = compare_whole(read_round(model, record))
    assert found.refusal is None
    assert found.compared == sum(w.numel() for w in record.global_weights.values() if w.is_floating_point())
    changed = {name: w.clone() for name, w in record.global_weights.items()}
    changed["3.bias"][1] += 1e-4
    other = replace(record, global_weights=changed)
    with pytest.raises(RecordError, match=f"not what {rule.rule} makes of its clients: '3.bias' differs"):
        attribute_round(model, other, torch.randn(2, 6), method=Method.leave_one_out())


def test_too_few_clients_to_leave_one_out_are_said():
    model, record = round_of(Aggregation("bulyan", malicious=1), count=7)
    with pytest.raises(RecordError, match=r"of 7 clients, has no bulyan .* without client '0'; .* needs 7 clients"):
        attribute_round(model, record, torch.randn(2, 6), method=Method.leave_one_out())
    with pytest.raises(RecordError, match="at least 7 clients, got 6"):
        weights_without(record, "0")


def test_whose_weights_prevent_a_removal_is_found_under_a_rule_too():
    rule = Aggregation("trimmed_mean")
    model, record = round_of(rule)
    variance = "1.running_var"
    clients = {k: {**w, variance: torch.full((8,), -6.5 if k == "0" else 1.0)} for k, w in record.clients.items()}
    made = {**record.global_weights, variance: torch.full((8,), 0.0625)}  # (7 - 6.5) / 8
    record = replace(record, clients=clients, global_weights=made)
    removals = ExactRemovals(model, record, torch.randn(2, 6))
    assert removals.attribution() is None
    assert removals.prevented == dict.fromkeys("1234567", "0")
    with pytest.raises(RecordError, match="has no trimmed_mean with finite logits without client '1'"):
        attribute_round(model, record, torch.randn(2, 6))
