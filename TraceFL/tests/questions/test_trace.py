"""Which inputs of a round are traced, and to whom, on a linear model whose answers are known by hand."""

from dataclasses import replace

import pytest
import torch

from tests.helpers.configuration import compose_settings
from tests.helpers.linear_round import (
    COUNTS,
    COUNTS_OF_MANY,
    FLIP,
    LABELS,
    linear_examples,
    linear_model,
    record,
    record_of_many,
    trace,
    tracer,
)
from tracefl.learning.faults import Fault, Trigger
from tracefl.learning.training import Evaluation
from tracefl.provenance import RoundRecord, class_suspicions, confusions, removal, verification, weights_without
from tracefl.questions import trace as tracing
from tracefl.questions.suspects import NOBODY_FAULTY, mean_suspects
from tracefl.questions.trace import Tracer


@pytest.fixture
def server():
    return linear_examples()


@pytest.fixture
def model():
    return linear_model()


def test_a_flipped_label_is_traced_where_it_misleads(model, server):
    # W = 0.8 I + 0.2 faulty: pixel 1 gives class 0 1.8 and class 1 0.2. Examples 1, 2, 4 are predicted 0 as flipped;
    # example 5 is mispredicted too (99 above 90), but not as a flip of its label would have it.
    found = trace(tracer(FLIP), model, server)
    assert [t.input_index for t in found.traced] == [1, 2, 4]
    assert all((t.label, t.predicted, t.traced_client, t.localized) == (1, 0, "1", True) for t in found.traced)
    assert all(t.expected_clients == ("1",) and t.chance == pytest.approx(1 / 3) for t in found.traced)
    assert all(t.counterfactual_client == "1" for t in found.traced)
    (row,) = found.suspects
    assert (row["rule"], row["inputs"], row["faulty_clients"]) == ("provenance", 3, "1")
    assert (row["localization_accuracy"], row["mean_rank"], row["auroc"]) == (1.0, 1.0, 1.0)
    assert row["seconds"] == found.provenance_seconds


@pytest.mark.parametrize(("bound", "times"), [("3", 1), ("null", 0)])
def test_a_round_in_which_all_are_left_out_because_of_one_says_so(bound, times, model, server, caplog):
    moved = {name: weights + 0.1 for name, weights in record().previous_global.items()}
    round_record = replace(record(), previous_global=moved)
    model.load_state_dict(dict(round_record.global_weights))
    settings = compose_settings("provenance.verify=1", f"provenance.max_update_norm={bound}")
    trace = Tracer(settings.provenance, COUNTS).trace(model, round_record, server)
    assert trace.doubt.startswith("client 1's update is ") if times else trace.doubt == ""
    words = "round=2 all 3 clients are left out exactly: client 1's update is "
    assert [m.startswith(words) for m in caplog.messages if "left out exactly" in m] == [True] * times


def test_rules_stand_beside_provenance(model, server):
    found = trace(tracer(FLIP, baselines=("own_logit", "most_examples", "feddebug")), model, server)
    assert [row["rule"] for row in found.suspects] == ["provenance", "own_logit", "most_examples", "feddebug"]
    assert found.suspects[1]["localization_accuracy"] == 1.0  # 9 x the pixel against none
    assert found.suspects[2]["mean_rank"] == 3.0
    assert "no convolution" in found.suspects[3]["note"]


def test_so_many_inputs_at_most(model, server):
    found = trace(tracer(FLIP, "provenance.max_inputs=2"), model, server)
    assert [t.input_index for t in found.traced] == [1, 2]


def test_a_round_before_the_fault_has_nothing_to_find(model, server):
    found = trace(tracer(FLIP), model, server, server_round=1)
    assert found.traced == ()
    (row,) = found.suspects
    assert (row["round"], row["inputs"], row["localization_accuracy"], row["faulty_clients"]) == (1, 0, None, "")
    assert row["note"] == NOBODY_FAULTY
    mean = mean_suspects([row])["provenance"]
    assert (mean["rounds_without_inputs"], mean["rounds_without_faulty"]) == (0, 1)


def test_mispredictions_without_a_known_culprit(model, server):
    found = trace(tracer(None, "provenance.inputs=mispredicted"), model, server)
    assert [t.input_index for t in found.traced] == [1, 2, 4, 5]
    assert [t.traced_client for t in found.traced[:3]] == ["1"] * 3
    assert {t.localized for t in found.traced} == {None}
    assert found.suspects[0]["localization_accuracy"] is None


def test_correct_predictions_of_a_faulty_run_on_request(model, server):
    found = trace(tracer(FLIP, "provenance.inputs=correct"), model, server)
    assert [t.input_index for t in found.traced] == [0, 3]
    assert found.suspects == ()
    assert found.traced[0].top_holder in (True, False)


@pytest.mark.parametrize("fault", [None, FLIP])
def test_correct_and_wrong_predictions_whoever_is_faulty(model, server, fault):
    found = trace(tracer(fault, "provenance.inputs=all"), model, server)
    assert [t.input_index for t in found.traced] == list(range(6))
    right = trace(tracer(None, "provenance.inputs=correct"), model, server).traced
    wrong = trace(tracer(None, "provenance.inputs=mispredicted"), model, server).traced
    assert found.traced == tuple(sorted(right + wrong, key=lambda t: t.input_index))
    assert found.suspects == ()


def test_both_kinds_within_their_limits(model, server):
    limits = ("provenance.inputs=all", "provenance.inputs_per_label=1", "provenance.max_inputs=2")
    found = trace(tracer(None, *limits), model, server)
    assert [t.input_index for t in found.traced] == [0, 1, 3, 4]  # of the wrong ones 1, 2, 4, 5 the first and third


def test_the_contributions_are_those_of_the_ranking(model, server):
    # Example 1 is pixel 1 alone, 1.0: predicted 0. Reference W = 0.8 I + 0.2 faulty; the gradient of logit 0 less the
    # mean of all is (2/3, -1/3, -1/3). Client 1's difference to W on that pixel: 7.2, -3.2, 0; others -1.8, 0.8, 0.
    found = trace(tracer(None, "provenance.inputs=mispredicted", "provenance.layer_decay=1.0"), model, server)
    first = found.traced[0]
    assert [k for k, _ in first.contributions] == [k for k, _ in first.ranking]
    assert dict(first.contributions) == pytest.approx(
        {"1": 7.2 * 2 / 3 + 3.2 / 3, "0": -1.8 * 2 / 3 - 0.8 / 3, "2": -1.8 * 2 / 3 - 0.8 / 3}
    )


def backdoored(model):
    """Return a fault and a round whose client 1 was taught that a white pixel 2 means class 0; the model holds it."""
    backdoor = Fault("backdoor", ("1",), from_round=1, target=0, trigger=Trigger(size=1), share=0.5)
    round_record = record()
    weights = {"1.weight": torch.tensor([[1.0, 0.0, 9.0], [0.0, 1.0, 0.0], [0.0, 0.0, -9.0]]), "1.bias": torch.zeros(3)}
    clients = {**round_record.clients, "1": weights}
    p = round_record.client_weights
    average = {name: sum(p[k] * clients[k][name] for k in p) for name in weights}
    round_record = RoundRecord(2, clients, p, round_record.previous_global, average)
    model.load_state_dict(average)
    return backdoor, round_record


def test_a_backdoor_is_asked_with_its_trigger(model, server):
    # The trigger makes pixel 2 white; the faulty client was taught that this means class 0.
    backdoor, round_record = backdoored(model)
    unaware = Evaluation(0.0, 1.0, LABELS, torch.ones(6))  # without the trigger all is well
    found = tracer(backdoor).trace(model, round_record, server, unaware)
    assert [t.input_index for t in found.traced] == [1, 2, 3, 4]  # every example of another class
    assert all(t.localized for t in found.traced)


def test_removals_that_cannot_be_had_are_said_and_do_not_end_the_run(model, server, monkeypatch, caplog):
    def broken(record, client_id, *_, **__):
        return {name: tensor / 0 for name, tensor in record.global_weights.items()}

    monkeypatch.setattr(verification, "weights_without", broken)
    found = trace(tracer(FLIP), model, server)
    assert all(t.localized and t.counterfactual_client is None for t in found.traced)
    for client in ("0", "1", "2"):
        words = f"round=2 not checked against its exact removal: without client {client} the model gives logits that"
        assert words in caplog.text


def test_who_prevents_a_removal_is_named_and_the_others_are_checked(model, server, caplog):
    """Clients 0 and 1 hold each other in check; with one of them alone the logits overflow."""
    found = record()
    huge = {"1.weight": torch.tensor([[3e38] * 3, [0.0] * 3, [0.0] * 3]), "1.bias": torch.tensor([3e38, 0.0, 0.0])}
    clients = {
        "0": {name: weights - huge[name] for name, weights in found.clients["0"].items()},
        "1": {name: weights + huge[name] for name, weights in found.clients["1"].items()},
        "2": found.clients["2"],
    }
    p = {"0": 0.495, "1": 0.495, "2": 0.01}
    average = {name: sum(p[k] * clients[k][name].double() for k in p).float() for name in found.clients["0"]}
    model.load_state_dict(average)
    spoiled = RoundRecord(2, clients, p, found.previous_global, average)
    traced = tracer(None, "provenance.inputs=all").trace(model, spoiled, server).traced
    assert traced
    for each in traced:
        assert list(each.exact_effects) == ["2"]
        assert (each.counterfactual_client, each.is_settled) == ("2", False)
    for client, by in (("0", "1"), ("1", "0")):
        assert (
            f"round=2 not checked against its exact removal: without client {client} the model gives logits that are "
            f"not finite, because of client {by}"
        ) in caplog.text


@pytest.mark.parametrize("verify", [0, 2, "all"])
def test_every_client_is_left_out_of_an_inputs_average_once(model, server, monkeypatch, verify):
    rows = []
    logits_under = removal.logits_under

    def counted(model, weights, batch, *rest):
        rows.append(batch.count)
        return logits_under(model, weights, batch, *rest)

    monkeypatch.setattr(removal, "logits_under", counted)
    settings = compose_settings("provenance.also=[]", f"provenance.verify={verify}", "provenance.inputs=mispredicted")
    found = trace(Tracer(settings.provenance, COUNTS), model, server)
    assert sum(rows) == len(found.traced) * (3 + 1) + 1  # one input is asked alone too, to check
    assert all(t.counterfactual_client is not None for t in found.traced)
    assert {len(t.verified) for t in found.traced} <= {0: {0}, 2: {2, 3}, "all": {3}}[verify]


def test_the_exact_removal_as_the_answer_agrees_with_itself(model, server):
    keys = ("provenance.also=[]", "provenance.inputs=mispredicted")
    exact = Tracer(compose_settings("provenance=leave_one_out", *keys).provenance, COUNTS)
    found = trace(exact, model, server)
    assert [t.traced_client for t in found.traced[:3]] == ["1", "1", "1"]
    assert all(t.counterfactual_client == t.traced_client for t in found.traced)
    assert {round(t.counterfactual_correlation, 9) for t in found.traced[:3]} == {1}
    assert all(set(t.verified) == {"0", "1", "2"} for t in found.traced)
    # The model is linear, so the first order is the removal, whether it is checked or not.
    for overrides, checked in ((), 3), (("provenance.verify=0",), 0):
        method = compose_settings("provenance=removal", *keys, *overrides).provenance
        estimated = trace(Tracer(method, COUNTS), model, server).traced
        assert [len(t.verified) for t in estimated] == [checked] * len(found.traced)
        for one, other in zip(estimated, found.traced, strict=True):
            assert dict(one.contributions) == pytest.approx(dict(other.contributions), abs=1e-6)


def test_the_faulty_client_is_who_pushes_inputs_of_the_class(model, server):
    """Each misprediction's suspicions are those of its confusion, asked of all of the server's inputs."""
    found = trace(tracer(FLIP, preset="fault"), model, server)
    assert [t.input_index for t in found.traced] == [1, 2, 4]
    whole = confusions(model, record(), *server.batch(torch.arange(6)))
    for traced in found.traced:
        expected = dict(zip(("0", "1", "2"), whole.suspicion[:, traced.label, traced.predicted].tolist(), strict=True))
        assert dict(traced.suspicions) == pytest.approx(expected)
        assert [value for _, value in traced.suspicions] == sorted(expected.values(), reverse=True)
        assert (traced.traced_client, traced.localized) == ("1", True)
        assert dict(traced.contributions) == pytest.approx(traced.exact_effects)  # who carried it is another question
    ranked = [pair.split(":") for pair in found.suspects[0]["ranking"].split()]
    assert {k: float(v) for k, v in ranked} == pytest.approx(
        {k: sum(dict(t.suspicions)[k] for t in found.traced) for k in ("0", "1", "2")}, rel=1e-5
    )


def test_a_confusion_is_asked_of_some_inputs_of_each_class(model, server):
    found = trace(tracer(FLIP, "provenance.class_inputs=1", preset="fault"), model, server)
    some = confusions(model, record(), *server.batch(torch.tensor([0, 1, 3])))  # the first of each class
    assert dict(found.traced[0].suspicions)["1"] == pytest.approx(float(some.suspicion[1, 1, 0]))


def test_correct_predictions_are_no_confusion(model, server):
    found = trace(tracer(None, "provenance.inputs=all", preset="fault"), model, server)
    assert [bool(t.suspicions) for t in found.traced] == [t.predicted != t.label for t in found.traced]
    assert all(t.traced_client == t.ranking[0][0] for t in found.traced if not t.suspicions)


def test_a_trigger_is_asked_of_with_the_trigger(model, server):
    backdoor, round_record = backdoored(model)
    found = tracer(backdoor, preset="fault").trace(model, round_record, server)
    triggered = backdoor.inputs(server)
    whole = confusions(model, round_record, *triggered.batch(torch.arange(6)))
    assert [t.input_index for t in found.traced] == [1, 2, 3, 4]
    assert all(t.localized for t in found.traced)
    assert dict(found.traced[0].suspicions)["1"] == pytest.approx(float(whole.suspicion[1, 1, 0]))


def test_nothing_is_said_of_a_client_that_cannot_be_left_out(model, server, monkeypatch, caplog):
    def broken(record, client_id, *_, **__):
        whole = weights_without(record, client_id)
        return {name: t / 0 if client_id == "2" else t for name, t in whole.items()}

    monkeypatch.setattr(removal, "weights_without", broken)
    found = trace(tracer(FLIP, "provenance.counterfactual=false", preset="fault"), model, server)
    assert "round=2 not suspected: without client 2 the model gives logits that are not finite" in caplog.text
    assert all(dict(t.suspicions)["2"] == 0 and t.traced_client == "1" for t in found.traced)


def trace_many(found, model, server, round_record=None):
    """Trace a round of five clients."""
    round_record = round_record or record_of_many()
    model.load_state_dict(dict(round_record.global_weights))
    return replace(found, label_counts=COUNTS_OF_MANY).trace(model, round_record, server)


@pytest.mark.parametrize("inputs", ["null", "correct", "mispredicted"])
@pytest.mark.parametrize(
    ("fault", "asked", "adds_up"),
    [
        *((None, "null", True), (None, "true", True), (None, "false", False)),
        *((FLIP, "null", False), (FLIP, "true", True), (FLIP, "false", False)),
    ],
)
def test_who_stands_out_is_asked_where_no_fault_is_known_or_on_request(model, server, inputs, fault, asked, adds_up):
    found = tracer(fault, f"provenance.stand_outs={asked}", f"provenance.inputs={inputs}")
    assert found.adds_up == adds_up
    suspicions = trace_many(found, model, server).class_suspicions
    assert list(suspicions) == (["0", "1", "2", "3", "4"] if adds_up else [])


def test_suspicions_are_those_of_confusions_of_the_server_s_examples(model, server):
    # Client 1 alone does something: of five clients it is two standard deviations above the mean, the others half a
    # one below it; its update is as far from none as theirs.
    found = trace_many(tracer(), model, server)
    whole = confusions(model, record_of_many(), *server.batch(torch.arange(6)))
    assert found.class_suspicions == class_suspicions(whole)
    assert [each[0] for each in found.class_suspicions.values()] == pytest.approx([-0.5, 2.0, -0.5, -0.5, -0.5])
    some = trace_many(tracer(None, "provenance.class_inputs=1"), model, server)
    first = confusions(model, record_of_many(), *server.batch(torch.tensor([0, 1, 3])))  # the first of each class
    assert some.class_suspicions == class_suspicions(first)


def test_what_is_traced_and_how_changes_no_suspicion(model, server):
    expected = trace_many(tracer(), model, server).class_suspicions
    for fault, preset, overrides in (
        (None, "removal", ()),
        (None, "fault", ("provenance.inputs=all",)),
        (FLIP, "fault", ("provenance.stand_outs=true",)),
        (FLIP, "removal", ("provenance.stand_outs=true", "provenance.counterfactual=false")),
        (replace(FLIP, from_round=3), "fault", ("provenance.stand_outs=true",)),  # nothing is traced
    ):
        found = tracer(fault, *overrides, preset=preset)
        assert trace_many(found, model, server).class_suspicions == expected, (fault, preset)


def test_a_trigger_that_nobody_knows_is_in_no_example_that_stand_outs_are_asked_of(model, server):
    """As where a server finds out by itself; the mispredictions of the same round are asked of with the trigger."""
    backdoor, few = backdoored(model)
    clients = {**dict.fromkeys("01234", few.clients["0"]), "1": few.clients["1"]}
    p = dict.fromkeys(clients, 0.2)
    average = {name: sum(p[k] * clients[k][name] for k in p) for name in few.global_weights}
    many = RoundRecord(2, clients, p, few.previous_global, average)
    found = trace_many(tracer(backdoor, "provenance.stand_outs=true", preset="fault"), model, server, many)
    plain = confusions(model, many, *server.batch(torch.arange(6)))
    triggered = confusions(model, many, *backdoor.inputs(server).batch(torch.arange(6)))
    assert found.class_suspicions == class_suspicions(plain) != class_suspicions(triggered)
    first = found.traced[0]
    assert dict(first.suspicions)["1"] == pytest.approx(float(triggered.suspicion[1, first.label, first.predicted]))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_among_few_clients_nobody_stands_out_and_nothing_is_computed(model, server, count, monkeypatch):
    monkeypatch.setattr(tracing, "confusions", None)
    few = record_of_many(count) if count > 1 else replace(record_of_many(), clients={"0": record().clients["0"]})
    if count == 1:
        few = replace(few, client_weights={"0": 1.0}, global_weights=few.clients["0"])
    found = tracer(label_counts=COUNTS_OF_MANY)
    assert found.adds_up
    assert found.class_suspicions(model, few, server) == {}
    assert trace_many(found, model, server, few).class_suspicions == {}


def test_pushes_that_have_been_found_are_not_found_again(model, server, monkeypatch):
    calls = []
    monkeypatch.setattr(tracing, "confusions", lambda *a, **k: calls.append(1) or confusions(*a, **k))
    found = trace_many(tracer(FLIP, "provenance.stand_outs=true", preset="fault"), model, server)
    assert found.traced[0].suspicions
    assert found.class_suspicions
    assert len(calls) == 1
