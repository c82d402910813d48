"""A record is read as the model needs it and checked: against models that are averaged, loaded and run one by one."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from tests.helpers import net_rounds
from tests.helpers.derivatives import derivatives
from tests.helpers.formula import PUBLISHED as FORMULA
from tests.helpers.net_rounds import (
    COUNTS,
    ESTIMATE,
    EXACT,
    FUNCTIONS,
    INPUTS,
    LABELS,
    PUBLISHED,
    WITH_MODEL,
    Net,
    P,
    Round,
    assert_right,
    every_function,
    mean,
    stepped,
)
from tracefl.errors import ModelMismatchError, RecordError
from tracefl.provenance import (
    Method,
    RoundRecord,
    attribute,
    attribute_round,
    explain,
    removal_effects,
)
from tracefl.provenance.reading import read_round


@every_function
def test_numbers_of_examples_are_divided_by_their_sum_and_said(ask):
    round_ = Round()
    with pytest.warns(UserWarning, match="taken as numbers of examples and divided by their sum, 1550"):
        ask(round_.model, replace(round_.record, client_weights=COUNTS))


def test_numbers_of_examples_give_what_their_shares_give():
    round_ = Round()
    with pytest.warns(UserWarning, match="numbers of examples"):
        assert_right(round_, round_.model, replace(round_.record, client_weights=COUNTS))


@every_function
@pytest.mark.parametrize(
    ("p", "message"),
    [
        ({"a": 0.5, "b": 0.2, "c": 0.1}, "client_weights adds up to 0.8: .* Is a client missing?"),
        ({"a": 0.9, "b": 0.9, "c": 0.1}, "adds up to 1.9"),
        ({"a": 0.5, "b": 0.5}, "no number for clients 'c'; it has numbers for 'a', 'b'"),
        ({"a": 0.5, "b": 0.5, "c": 0.0}, "client 'c' has weight 0: .* its contribution is 0"),
        ({"a": 1.5, "b": -0.5, "c": 1e-9}, "must be positive numbers, got -0.5 of 'b'"),
        ({"a": float("nan"), "b": 0.5, "c": 0.5}, "must be positive numbers, got nan of 'a'"),
    ],
)
def test_weights_that_are_no_average_s_are_refused(ask, p, message):
    round_ = Round()
    with pytest.raises(RecordError, match=message):
        ask(round_.model, replace(round_.record, client_weights=p))


def test_a_client_that_is_missing_is_named_as_the_reason():
    round_ = Round()
    less = {k: round_.clients[k] for k in "ab"}
    with pytest.raises(RecordError, match="clients that are not there, 'c'"):
        removal_effects(round_.model, replace(round_.record, clients=less), INPUTS)
    with pytest.warns(UserWarning, match="1500"), pytest.raises(RecordError, match="is not the weighted average"):
        removal_effects(
            round_.model, replace(round_.record, clients=less, client_weights={"a": 1200, "b": 300}), INPUTS
        )


@every_function
def test_a_global_model_that_is_no_average_is_refused(ask):
    round_ = Round(rate=1.9)
    with pytest.raises(
        RecordError, match=r"not the weighted average of its clients: '.*' differs by up to .*server_step="
    ):
        ask(round_.model, replace(round_.record, server_step=1.0))
    with pytest.raises(RecordError, match="not the step of 0.5 to the weighted average"):
        ask(round_.model, replace(round_.record, server_step=0.5))
    with pytest.raises(RecordError, match="server_step must be a positive number"):
        ask(round_.model, replace(round_.record, server_step=0.0))


@pytest.mark.parametrize("rate", [1.0, 1.9, 0.3])
def test_removals_and_shapley_values_take_the_server_s_step(rate):
    round_ = Round(rate=rate)
    assert_right(round_, round_.model, round_.record)
    assert_close(dict(read_round(None, round_.record).average), mean(round_.clients, P))


STATISTICS = ("norm.running_mean", "norm.running_var")
WITHOUT_LAYER = ("first.weight", "first.bias", *STATISTICS)


@pytest.mark.parametrize(
    ("rate", "averaged", "carried"),
    [(1.9, STATISTICS, 0.0), (0.3, STATISTICS, 0.0), (0.6, STATISTICS, 0.2), (0.6, WITHOUT_LAYER, 0.0)],
)
def test_a_server_may_step_some_tensors_and_average_the_others(rate, averaged, carried):
    """As many servers with a learning rate do with BatchNorm's statistics; with and without momentum."""
    round_ = Round(rate, averaged=averaged, carried=carried)
    assert_right(round_, round_.model, round_.record)
    assert_close(dict(read_round(None, round_.record).average), mean(round_.clients, P))


def test_the_estimate_takes_each_tensor_s_own_step():
    round_ = Round(0.6, averaged=STATISTICS, carried=0.2, dtype=torch.float64)
    inputs, method = INPUTS.double(), Method(target="predicted", verify=0)
    found = attribute_round(round_.model, round_.record, inputs, LABELS, method).contributions
    without = {k: round_.made_by([j for j in P if j != k]) for k in P}
    assert_close(found, -derivatives(round_.model, without, inputs, reference=round_.weights))


def test_a_step_that_no_tensor_takes_and_tensors_that_neither_step_nor_are_averaged_are_refused():
    average = Round()
    with pytest.raises(RecordError, match="it is that average itself, in every tensor. Leave server_step= out"):
        removal_effects(average.model, replace(average.record, server_step=0.5), INPUTS)
    round_ = Round(0.5, averaged=STATISTICS)
    own = {**round_.weights, "norm.running_mean": round_.start["norm.running_mean"]}  # such as FedBN's
    with pytest.raises(RecordError, match="'norm.running_mean' differs by up to"):
        removal_effects(round_.model, replace(round_.record, global_weights=own), INPUTS)
    with pytest.raises(RecordError, match="the average is that of the record once it was read"):
        dict(round_.record.average)


def linear_round(rate, carried=0.0):
    """A linear model, whose estimates are exact, and a step with what earlier rounds' momentum adds."""
    torch.manual_seed(1)
    model = nn.Linear(6, 4).double()
    start = {n: t.clone() for n, t in model.state_dict().items()}
    clients = {k: {n: torch.randn_like(t) for n, t in start.items()} for k in P}
    made = stepped(start, mean(clients, P), rate)
    deployed = {n: t + carried for n, t in made.items()}
    model.load_state_dict(deployed)
    return model, RoundRecord(1, clients, P, start, deployed, made if carried else None, server_step=rate)


@pytest.mark.parametrize(("rate", "carried"), [(1.0, 0.0), (1.9, 0.0), (0.3, 0.7)])
def test_the_estimate_takes_the_server_s_step_too(rate, carried):
    model, record = linear_round(rate, carried)
    inputs = INPUTS.double()
    found = attribute_round(model, record, inputs, LABELS, ESTIMATE).contributions
    logits = model(inputs).detach()
    classes = logits.argmax(1)
    for i, k in enumerate(P):
        rest = {j: c for j, c in record.clients.items() if j != k}
        others = mean(rest, {j: P[j] / (1 - P[k]) for j in rest})
        weights = {n: t + carried for n, t in stepped(record.previous_global, others, rate).items()}
        left = inputs @ weights["weight"].T + weights["bias"]
        effect = (logits - left).gather(1, classes[:, None])[:, 0] - (logits - left).mean(1)
        assert_close(found[:, i], effect)
        assert_close(removal_effects(model, record, inputs)[:, i], effect)


def test_a_step_that_is_not_linear_is_told_apart():
    round_ = Round()
    odd = {n: t + 0.01 * t.sign() if t.is_floating_point() else t for n, t in round_.weights.items()}
    record = replace(round_.record, global_weights=odd, server_step="nonlinear")
    for function in FUNCTIONS.values():
        with pytest.raises(RecordError, match="server's step is not linear"):
            function(round_.model, record)
    round_.model.load_state_dict(odd)
    found = attribute_round(round_.model, record, INPUTS, LABELS, PUBLISHED).contributions
    assert_close(found, attribute(round_.model, round_.clients, INPUTS, **FORMULA).contributions)
    told = explain(round_.model, record, INPUTS[:1], PUBLISHED)
    assert [client.removal for client in told.clients] == [None] * 3


def test_contributions_that_need_no_average_are_given_for_any_global_model():
    round_ = Round(rate=1.9)
    record = replace(round_.record, server_step=1.0)
    found = attribute_round(round_.model, record, INPUTS, LABELS, PUBLISHED).contributions
    assert_close(found, attribute(round_.model, round_.clients, INPUTS, **FORMULA).contributions)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_an_average_is_known_in_spite_of_rounding(dtype):
    """Sums of many clients in the weights' own type, one after another, divided last as Flower does."""
    torch.manual_seed(0)
    n = {k: float(17 + 3 * k) for k in range(40)}
    clients = {k: {"w": torch.randn(300, 7).to(dtype)} for k in n}
    sums = sum(clients[k]["w"].float() * n[k] for k in n) / sum(n.values())
    record = RoundRecord(1, clients, {k: n[k] / sum(n.values()) for k in n}, clients[0], {"w": sums.to(dtype)})
    assert read_round(None, record).is_average
    beside = {"w": sums.to(dtype) + {torch.float32: 1e-4, torch.float16: 0.02, torch.bfloat16: 0.2}[dtype]}
    with pytest.raises(RecordError, match="'w' differs by up to"):
        assert read_round(None, replace(record, global_weights=beside)).is_average


def test_clients_that_were_rounded_for_storage():
    round_ = Round()
    kept = {
        k: {n: t.bfloat16().float() if t.is_floating_point() else t for n, t in c.items()}
        for k, c in round_.clients.items()
    }
    record = replace(round_.record, clients=kept)
    with pytest.raises(RecordError, match="not the weighted average"):
        removal_effects(round_.model, record, INPUTS)
    found = removal_effects(round_.model, replace(record, clients_dtype=torch.bfloat16), INPUTS)
    assert_close(found, round_.effects, rtol=0.1, atol=0.02)


def test_a_model_that_holds_other_weights_is_given_the_round_s_and_its_own_again():
    round_ = Round()
    other = Net().train()
    before = {n: t.clone() for n, t in other.state_dict().items()}
    for method in (ESTIMATE, EXACT, PUBLISHED):
        expected = attribute_round(round_.model, round_.record, INPUTS, LABELS, method).contributions
        found = attribute_round(other, round_.record, INPUTS, LABELS, method).contributions
        assert_close(found, expected, rtol=0, atol=0)
    assert_right(round_, other, round_.record)
    assert other.training
    assert_close(dict(other.state_dict()), before, rtol=0, atol=0)


@pytest.mark.parametrize("ask", ["attribute", *WITH_MODEL])
def test_an_input_that_is_not_finite_is_blamed(ask, monkeypatch):
    round_ = Round()
    bad = INPUTS.clone()
    bad[0, 3] = torch.nan
    monkeypatch.setattr(net_rounds, "INPUTS", bad)
    function = (lambda model, record: attribute(model, record.clients, bad)) if ask == "attribute" else FUNCTIONS[ask]
    with pytest.raises(ValueError, match="input 0 holds values that are not finite"):
        function(round_.model, round_.record)


def test_logits_that_overflow_are_blamed():
    round_ = Round()
    huge = {k: {n: t * 1e30 if n.startswith("last") else t for n, t in c.items()} for k, c in round_.clients.items()}
    weights = mean(huge, P)
    record = replace(round_.record, clients=huge, global_weights=weights)
    round_.model.load_state_dict(weights)
    with pytest.raises(ModelMismatchError, match="overflow float32"):
        removal_effects(round_.model, record, INPUTS * 1e12)
