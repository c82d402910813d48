"""What is looked at in a round, on a linear model: client 1 was taught that pixel 1 means class 0."""

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from tests.helpers.linear_round import COUNTS_OF_MANY, FLIP, linear_examples, linear_model, record, record_of_many
from tests.helpers.linear_round import tracer as linear_tracer
from tracefl.experiment.mitigation import evidence
from tracefl.experiment.mitigation.decision import Mitigation
from tracefl.experiment.mitigation.evidence import at_whole_weight, mitigate_round
from tracefl.federation.participation import Participation
from tracefl.provenance import StandOuts, confusions, standing_out
from tracefl.questions import trace as questions
from tracefl.records.settings import DownweightSettings, ExclusionSettings

HONEST = replace(FLIP, clients=("2",))
BAR = 0.3
"""As ``false_alarms`` it is a bar of 0.76; of five clients one that does what no other does stands out by 2."""


@pytest.fixture(autouse=True)
def bar(monkeypatch):
    """The bars of these tests, whatever was measured since."""
    monkeypatch.setattr(standing_out, "_MODE", 0.3)
    monkeypatch.setattr(standing_out, "_SCALE", 0.45)


@pytest.fixture
def server():
    return linear_examples()


@pytest.fixture
def model():
    return linear_model()


def tracer(fault=None, *overrides):
    return linear_tracer(fault, *overrides, label_counts=COUNTS_OF_MANY)


def mitigation(name="exclude", gain_alone=None):
    rule = {"gain": 0.01, "gain_alone": gain_alone, "window": 1, "from_round": 1}
    settings = ExclusionSettings(**rule) if name == "exclude" else DownweightSettings(**rule, factor=0.1)
    return Mitigation(settings, Participation(), least_clients=2)


def look(rule, found, model, server, round_record=None, stand_outs=None):
    """Return the rows of mitigation.csv by client, and all that was found."""
    round_record = round_record or record_of_many()
    model.load_state_dict(dict(round_record.global_weights))
    own = found.trace(model, round_record, server)
    stand_outs = stand_outs or StandOuts(BAR)
    mitigated = mitigate_round(rule, stand_outs, found, own, model, round_record, server, tuple("01234"))
    return {row["client"]: row for row in mitigated.rows}, mitigated


def test_whoever_misleads_is_found_and_the_average_is_better_without_it(model, server):
    # Examples 1, 2 and 4 are mispredicted; without client 1 the model is the identity, and example 5 alone is wrong.
    rule = mitigation()
    rows, found = look(rule, tracer(), model, server)
    assert (rows["1"]["toward"], rows["1"]["total"]) == (0, pytest.approx(2.0 - 1.0))
    assert rows["1"]["gain"] == pytest.approx(5 / 6 - 3 / 6)
    # Without another one client 1 is a quarter of the average, which then errs in example 3, too.
    assert [rows[k]["gain"] for k in "0234"] == pytest.approx([-1 / 6] * 4)
    assert [client for client, row in rows.items() if row["named"]] == ["1"]
    assert [client for client, row in rows.items() if row["decision"]] == ["1"]
    assert rule.participation.excluded == {"1"}
    assert [(row["client"], row["total"], row["named"]) for row in found.stand_outs] == [
        (row["client"], row["total"], row["named"]) for row in rows.values()
    ]
    assert found.trace.class_suspicions["1"][0] == pytest.approx(2.0)


def test_who_stands_out_is_found_over_its_rounds(model, server):
    """By the bar of one false alarm in a hundred runs, 2.37, in the third round."""
    rule, stand_outs, decided = mitigation(), StandOuts(0.01), []
    for number in (1, 2, 3):
        rows, _ = look(rule, tracer(), model, server, record_of_many(server_round=number), stand_outs)
        decided.append((rows["1"]["total"], rows["1"]["decision"]))
    assert decided == [
        (pytest.approx(1.0), ""),
        (pytest.approx(2.0), ""),
        (pytest.approx(3.0), "exclude"),
    ]


@pytest.mark.parametrize(
    "asked",
    [
        *("inputs=null", "inputs=mispredicted", "inputs=all", "inputs=correct"),
        *("stand_outs=true", "stand_outs=false"),
    ],
)
def test_the_truth_changes_nothing(model, server, asked):
    """Whoever is known to be faulty, if any, and whatever the run itself asks."""
    expected, first = look(mitigation(), tracer(), model, server)
    asks = tracer(None, f"provenance.{asked}")
    for fault in (None, FLIP, HONEST, replace(FLIP, from_round=3)):
        found, second = look(mitigation(), replace(asks, fault=fault), model, server)
        assert found == expected, fault
        assert second.stand_outs == first.stand_outs
        assert second.trace.class_suspicions == first.trace.class_suspicions


def test_what_the_run_has_computed_is_not_computed_again(model, server, monkeypatch):
    calls = []
    monkeypatch.setattr(questions, "confusions", lambda *a, **k: calls.append(1) or confusions(*a, **k))
    for fault, adds_up, again in (
        (None, "null", False),
        (None, "true", False),
        (FLIP, "true", False),
        (FLIP, "null", True),
        (None, "false", True),
    ):
        calls.clear()
        found, round_record = tracer(fault, f"provenance.stand_outs={adds_up}"), record_of_many()
        model.load_state_dict(dict(round_record.global_weights))
        own = found.trace(model, round_record, server)
        mitigated = mitigate_round(
            mitigation(), StandOuts(BAR), found, own, model, round_record, server, tuple("01234")
        )
        assert len(calls) == 1
        assert (mitigated.trace is own) == (not again)
        assert (mitigated.trace.provenance_seconds > own.provenance_seconds) == again
        assert replace(mitigated.trace, class_suspicions={}, provenance_seconds=0.0) == replace(
            own, class_suspicions={}, provenance_seconds=0.0
        )


def light_round(factor, whole):
    """Return a round with client 1 having weighed less: its p times the factor against those of the others."""
    total = 0.8 + 0.2 * factor
    p = {k: (factor if k == "1" else 1.0) * part / total for k, part in whole.client_weights.items()}
    average = {name: sum(p[k] * whole.clients[k][name] for k in p) for name in whole.global_weights}
    return replace(whole, client_weights=p, global_weights=average)


def test_a_round_at_whole_weight_is_the_round_that_would_have_been():
    again, whole = at_whole_weight(light_round(0.1, record()), {"1": 0.1, "7": 0.5}), record()
    assert again.client_weights == pytest.approx(whole.client_weights)
    for name, weights in whole.global_weights.items():
        assert_close(again.global_weights[name], weights)
    assert at_whole_weight(whole, {}).client_weights == pytest.approx(whole.client_weights)


def test_a_round_at_whole_weight_keeps_its_noise():
    light = light_round(0.1, record())
    noise = {name: torch.full_like(weights, 0.5) for name, weights in light.global_weights.items()}
    noisy = {name: weights + noise[name] for name, weights in light.global_weights.items()}
    again = at_whole_weight(replace(light, global_weights=noisy, before_noise=light.global_weights), {"1": 0.1})
    for name, weights in record().global_weights.items():
        assert_close(again.average[name], weights)
        assert_close(again.global_weights[name], weights + 0.5)


@pytest.mark.parametrize("fault", [None, FLIP])
def test_a_light_client_is_judged_as_if_it_weighed_its_whole_part(model, server, fault):
    rule, stand_outs = mitigation("downweight"), StandOuts(BAR)
    rows, whole = look(rule, tracer(fault), model, server, stand_outs=stand_outs)
    assert rows["1"]["decision"] == "downweight"
    assert rule.participation.factors == {"1": 0.1}
    light = light_round(0.1, record_of_many())
    rows, found = look(rule, tracer(fault), model, server, light, stand_outs)
    assert (rows["1"]["total"], rows["1"]["gain"], rows["1"]["decision"]) == (
        pytest.approx(2.0),  # twice 2 - 1
        pytest.approx(2 / 6),  # of the deployed model, which errs in example 5 alone, it would be 0
        "",
    )
    for client, suspicions in whole.trace.class_suspicions.items():
        assert found.trace.class_suspicions[client] == pytest.approx(suspicions, abs=1e-6)
    assert rule.participation.factors == {"1": 0.1}
    honest = dict.fromkeys("01234", light.clients["0"])
    mended = replace(light, clients=honest, global_weights=honest["0"])
    rows, _ = look(rule, tracer(fault), model, server, mended, stand_outs)
    assert (rows["1"]["gain"], rows["1"]["decision"]) == (0.0, "restore")
    assert rule.participation.factors == {}


def test_everybody_is_left_out_once_and_the_average_is_read_once(model, server, monkeypatch):
    averages, evaluated = [], []
    average, measured = evidence.float64_average, evidence.evaluate
    monkeypatch.setattr(evidence, "float64_average", lambda *a: averages.append(1) or average(*a))
    monkeypatch.setattr(evidence, "evaluate", lambda *a, **k: evaluated.append(1) or measured(*a, **k))
    rows, _ = look(mitigation(), tracer(), model, server)
    assert (len(averages), len(evaluated)) == (1, 6)  # five clients, and all of them
    assert all(row["gain"] is not None for row in rows.values())


def test_who_suppresses_what_others_have_learned_is_found_though_it_does_not_stand_out(model, server):
    """Client 1 takes pixel 1's class from everybody and gives it to no one in particular."""
    weights = torch.tensor([[1.0, 0.0, 0.0], [0.0, -9.0, 0.0], [0.0, 0.0, 1.0]])
    suppressed = record_of_many(faulty=weights)
    seldom = mitigation()
    rows, _ = look(seldom, tracer(), model, server, suppressed)
    assert rows["1"]["named"] is False
    assert (rows["1"]["decision"], seldom.participation.excluded) == ("", set())
    rows, _ = look(mitigation(gain_alone=0.2), tracer(), model, server, suppressed)
    assert rows["1"]["gain"] > 0.2
    assert {k for k, row in rows.items() if row["decision"]} == {"1"}


def test_of_a_round_of_three_the_gain_alone_is_known(model, server):
    """Nobody can stand out, however much is gained without it."""
    rows, found = look(mitigation(), tracer(), model, server, record())
    assert (found.stand_outs, found.trace.class_suspicions) == ((), {})
    assert [(row["total"], row["named"], row["decision"]) for row in rows.values()] == [(None, None, "")] * 3
    assert rows["1"]["gain"] == pytest.approx(5 / 6 - 2 / 6)
    rows, _ = look(mitigation(gain_alone=0.2), tracer(), model, server, record())
    assert {k for k, row in rows.items() if row["decision"]} == {"1"}


def test_of_a_model_that_knows_nothing_nobody_stands_out(model, server):
    """Without example 3 nothing but class 0 is predicted: right as often as by drawing."""
    harm = torch.tensor([[1.0, 9.0, 9.0], [0.0, -3.0, -4.0], [0.0, -9.0, -3.0]])
    rows, found = look(mitigation(), tracer(), model, server, record_of_many(faulty=harm))
    assert found.stand_outs == ()
    assert (rows["1"]["gain"], rows["1"]["decision"]) == (pytest.approx(5 / 6 - 2 / 6), "")


@pytest.mark.parametrize("skilled", [True, False], ids=["three clients", "a model that knows nothing"])
def test_who_stands_out_does_so_after_a_round_that_does_not_count_too(model, server, skilled):
    """Else a light client would get its full weight back whenever another one's reply is late."""
    rule, stand_outs = mitigation("downweight"), StandOuts(BAR)
    look(rule, tracer(), model, server, stand_outs=stand_outs)
    assert rule.participation.factors == {"1": 0.1}
    harm = torch.tensor([[1.0, 9.0, 9.0], [0.0, -3.0, -4.0], [0.0, -9.0, -3.0]])
    uncounted = record_of_many(3, server_round=3) if skilled else record_of_many(faulty=harm, server_round=3)
    rows, found = look(rule, tracer(), model, server, light_round(0.1, uncounted), stand_outs)
    assert found.stand_outs == ()
    assert (rows["1"]["total"], rows["1"]["named"], rows["1"]["decision"]) == (pytest.approx(1.0), True, "")
    assert rule.participation.factors == {"1": 0.1}
