"""What is looked at in a round, on a linear model: client 1 was taught that pixel 1 means class 0."""

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from tests.helpers.linear_round import FLIP, linear_examples, linear_model, record, tracer
from tracefl.experiment.mitigation import evidence
from tracefl.experiment.mitigation.decision import Mitigation
from tracefl.experiment.mitigation.evidence import at_whole_weight, mitigate_round
from tracefl.federation.participation import Participation
from tracefl.questions.trace import Tracer
from tracefl.records.settings import DownweightSettings, ExclusionSettings

HONEST = replace(FLIP, clients=("2",))


@pytest.fixture
def server():
    return linear_examples()


@pytest.fixture
def model():
    return linear_model()


def mitigation(name="exclude", **participation):
    rule = (0.7, 0.01, None, 1, 1, 1)
    settings = ExclusionSettings(*rule) if name == "exclude" else DownweightSettings(*rule, factor=0.1)
    return Mitigation(settings, Participation(**participation), least_clients=2)


def look(rule, found, model, server, round_record=None, able=("0", "1", "2")):
    round_record = round_record or record()
    model.load_state_dict(dict(round_record.global_weights))
    own = found.trace(model, round_record, server)
    rows, seconds = mitigate_round(rule, found, own, model, round_record, server, able)
    return {row["client"]: row for row in rows}, seconds


def test_whoever_misleads_is_found_and_the_average_is_better_without_it(model, server):
    # Four of six examples are mispredicted; without client 1 the model is the identity, and example 5 alone is wrong.
    rule = mitigation()
    rows, _ = look(rule, tracer(None, "provenance.inputs=mispredicted"), model, server)
    assert rows["1"]["mispredictions"] == 4
    assert rows["1"]["named"] >= 3
    assert rows["1"]["gain"] == pytest.approx(5 / 6 - 2 / 6)
    assert rows["0"]["gain"] == rows["2"]["gain"] == pytest.approx(0.0)  # a third of the others is client 1 then
    assert rows["1"]["decision"] == "exclude"
    assert rule.participation.excluded == {"1"}


@pytest.mark.parametrize("inputs", ["null", "mispredicted", "all", "correct"])
@pytest.mark.parametrize("fault", [None, FLIP, HONEST, replace(FLIP, from_round=3)])
def test_the_truth_changes_nothing(model, server, inputs, fault):
    """Whoever is known to be faulty, if any, and whatever the run itself traces."""
    expected, _ = look(mitigation(), tracer(None, "provenance.inputs=mispredicted"), model, server)
    found, _ = look(mitigation(), tracer(fault, f"provenance.inputs={inputs}"), model, server)
    assert found == expected


def test_what_the_run_has_traced_is_not_traced_again(model, server, monkeypatch):
    calls = []
    original = Tracer.trace
    monkeypatch.setattr(Tracer, "trace", lambda *a, **k: calls.append(1) or original(*a, **k))
    for fault, inputs, times in (
        (None, "mispredicted", 1),
        (None, "all", 1),
        (FLIP, "all", 1),
        (FLIP, "mispredicted", 2),
        (None, "correct", 2),
    ):
        calls.clear()
        _, seconds = look(mitigation(), tracer(fault, f"provenance.inputs={inputs}"), model, server)
        assert len(calls) == times
        assert (seconds > 0) == (times == 2)


def light_round(factor):
    """Return the round with client 1 having weighed less: 0.2 * factor against 0.4 and 0.4."""
    whole = record()
    total = 0.8 + 0.2 * factor
    p = {"0": 0.4 / total, "1": 0.2 * factor / total, "2": 0.4 / total}
    average = {name: sum(p[k] * whole.clients[k][name] for k in p) for name in whole.global_weights}
    return replace(whole, client_weights=p, global_weights=average)


def test_a_round_at_whole_weight_is_the_round_that_would_have_been():
    again, whole = at_whole_weight(light_round(0.1), {"1": 0.1, "7": 0.5}), record()
    assert again.client_weights == pytest.approx(whole.client_weights)
    for name, weights in whole.global_weights.items():
        assert_close(again.global_weights[name], weights)
    assert at_whole_weight(whole, {}).client_weights == pytest.approx(whole.client_weights)


def test_a_round_at_whole_weight_keeps_its_noise():
    light = light_round(0.1)
    noise = {name: torch.full_like(weights, 0.5) for name, weights in light.global_weights.items()}
    noisy = {name: weights + noise[name] for name, weights in light.global_weights.items()}
    again = at_whole_weight(replace(light, global_weights=noisy, before_noise=light.global_weights), {"1": 0.1})
    for name, weights in record().global_weights.items():
        assert_close(again.average[name], weights)
        assert_close(again.global_weights[name], weights + 0.5)


def test_a_light_client_is_judged_as_if_it_weighed_its_whole_part(model, server):
    rule = mitigation("downweight")
    blind = tracer(None, "provenance.inputs=mispredicted")
    rows, _ = look(rule, blind, model, server)
    assert rows["1"]["decision"] == "downweight"
    assert rule.participation.factors == {"1": 0.1}
    light = light_round(0.1)
    rows, _ = look(rule, blind, model, server, light)
    assert (rows["1"]["mispredictions"], rows["1"]["gain"], rows["1"]["decision"]) == (4, pytest.approx(0.5), "")
    assert rule.participation.factors == {"1": 0.1}  # the deployed model errs in one example only, and not by client 1
    honest = dict.fromkeys("012", record().clients["0"])
    mended = replace(light, clients=honest, global_weights=honest["0"])
    rows, _ = look(rule, blind, model, server, mended)
    assert rows["1"]["decision"] == "restore"
    assert rule.participation.factors == {}


def test_everybody_is_left_out_once_and_the_average_is_read_once(model, server, monkeypatch):
    averages, evaluated = [], []
    average, measured = evidence.float64_average, evidence.evaluate
    monkeypatch.setattr(evidence, "float64_average", lambda *a: averages.append(1) or average(*a))
    monkeypatch.setattr(evidence, "evaluate", lambda *a, **k: evaluated.append(1) or measured(*a, **k))
    rows, _ = look(mitigation(), tracer(None, "provenance.inputs=mispredicted"), model, server)
    assert (len(averages), len(evaluated)) == (1, 4)  # three clients, and all of them
    assert all(row["gain"] is not None for row in rows.values())


def test_who_suppresses_what_others_have_learned_is_found_though_hardly_named(model, server):
    """Client 1 takes pixel 1's class from everybody and gives it to no one in particular."""
    honest = record().clients["0"]
    weights = honest["1.weight"].clone()
    weights[:, 1] = torch.tensor([0.0, -9.0, 0.0])
    clients = {"0": honest, "1": {**honest, "1.weight": weights}, "2": honest}
    p = record().client_weights
    average = {name: sum(p[k] * clients[k][name] for k in p) for name in honest}
    suppressed = replace(record(), clients=clients, global_weights=average)
    seldom = Mitigation(ExclusionSettings(1.0, 0.01, None, 1, 1, 1), Participation(), least_clients=2)
    found = tracer(None, "provenance.inputs=mispredicted")
    rows, _ = look(seldom, found, model, server, suppressed)
    assert rows["1"]["named"] < rows["1"]["mispredictions"]
    assert (rows["1"]["decision"], seldom.participation.excluded) == ("", set())
    alone = Mitigation(ExclusionSettings(1.0, 0.01, 0.2, 1, 1, 1), Participation(), least_clients=2)
    rows, _ = look(alone, found, model, server, suppressed)
    assert rows["1"]["gain"] > 0.2
    assert {k for k, row in rows.items() if row["decision"]} == {"1"}


def test_what_nobody_carries_names_no_client(model, server):
    """It counts among the mispredictions, and against no one: of these four, the one that client 1 did not bring."""
    round_record, found = record(), tracer(None, "provenance.inputs=mispredicted")
    model.load_state_dict(dict(round_record.global_weights))
    own = found.trace(model, round_record, server)
    assert [(t.input_index, t.traced_client) for t in own.traced if t.responsible is None] == [(5, "0")]
    rows, _ = mitigate_round(mitigation(), found, own, model, round_record, server, ("0", "1", "2"))
    assert {row["client"]: (row["named"], row["mispredictions"]) for row in rows} == {
        "0": (0, 4),
        "1": (3, 4),
        "2": (0, 4),
    }
    surer = replace(own.traced[0], effects=tuple((k, -1.0 - n) for n, (k, _) in enumerate(own.traced[0].ranking)))
    own = replace(own, traced=(surer, *own.traced[1:]))
    rows, _ = mitigate_round(mitigation(), found, own, model, round_record, server, ("0", "1", "2"))
    assert [row["named"] for row in rows] == [0, 2, 0]
