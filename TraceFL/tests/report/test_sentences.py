import shlex
from dataclasses import replace

import pytest

from tests.helpers.made_page import FAULT, make_run, result, suspects_row, traced_input, with_suspicions
from tests.helpers.replayed_runs import make_replayed_run
from tracefl.learning.faults import Fault
from tracefl.learning.faults.trigger import Trigger
from tracefl.learning.measures import Measures
from tracefl.questions.replay import Replay, ReplayedRound
from tracefl.questions.suspects import NOBODY_FAULTY
from tracefl.records.result import left_out_words
from tracefl.records.run import StoredRun
from tracefl.records.store import RoundStore
from tracefl.report.fault_words import what_was_done
from tracefl.report.sentences import answer, next_commands, program_name

BY_2 = {"2": 0.6, "0": 0.3, "3": 0.1}
BY_3 = {"3": 0.6, "0": 0.3, "2": 0.1}


def right(index, scores=None, **more):
    return traced_input(index, label=0, scores=scores, **more)


def wrong(index, scores=None, label=1, predicted=0, **more):
    given = {"expected": (), "counterfactual_client": None, "counterfactual_correlation": None} | more
    return traced_input(index, label=label, predicted=predicted, scores=scores, **given)


def said(tmp_path, results, *overrides, replay=None, **more):
    """Return the texts, the main ones marked with a star."""
    run = StoredRun(make_run(tmp_path, results, *overrides, **more))
    return [f"{'* ' if each.is_main else ''}{each.text}" for each in answer(run, results, replay)]


def test_wrong_predictions_without_a_known_fault(tmp_path):
    # Three clients a round: of six wrong ones any client would carry 2 by chance, of three 1.
    traced = [wrong(i, BY_2) for i in range(3)] + [wrong(3, BY_2, label=3), wrong(4, label=3), wrong(5, BY_3, label=2)]
    assert said(tmp_path, [result(1, traced)], "provenance.inputs=all") == [
        "After round 1 the model is right on 50.0% of 6 test images.",
        "* Of the 6 wrong predictions traced in round 1, client 2 carries the most: 4 (chance: 2).",
        "The most frequent is <script>window.hacked = true</script> taken for ant: of these 3, client 2 carries all "
        "(chance: 1).",
    ]


def test_who_stands_out(tmp_path):
    rounds = with_suspicions([result(1), result(2)], ({"2": (1.2, 0, 0, 0), "0": (0, 0, 0, 0)}, {"2": (9, 0, 0, 0)}))
    assert said(tmp_path, rounds)[1] == (
        "* Client 2 stands out as one that was taught that others are ant, from round 1 on: somebody stands out so far "
        "in less than 0.1% of runs in which all clients are honest."
    )


def test_where_nobody_stands_out(tmp_path):
    rounds = with_suspicions([result(1), result(2)], ({"2": (1.2, 0, 0, 0), "0": (0, 0, 0, 0)}, {}))
    share = rounds[0].stand_outs[0]["honest_share"]
    assert said(tmp_path, rounds)[1] == (
        f"No client stands out over 1 round: in {100 * share:.1f}% of runs in which all clients are honest, somebody "
        "stands out as far as any did here."
    )


def test_who_was_refused_and_who_capped(tmp_path):
    spoiled = {"dropped": {"10": "a training loss of nan", "9": "gone"}}
    rounds = [replace(result(n, **spoiled), refused=("10",), capped={"2": "words"} if n == 1 else {}) for n in (1, 2)]
    assert said(tmp_path, rounds)[1:3] == [
        "What clients sent was refused: client 10 in 2 rounds.",
        "What clients sent was brought down to a bound: client 2 in 1 round.",
    ]


def test_clients_with_the_same_number_are_all_named(tmp_path):
    traced = [wrong(0), wrong(1, BY_2, label=2), wrong(2, BY_2, label=3), wrong(3, label=3), wrong(4, BY_3)]
    words = said(tmp_path, [result(1, traced)], "provenance.inputs=all")
    assert words[1] == (
        "* Of the 5 wrong predictions traced in round 1, clients 0 and 2 carry the most: 2 each (chance: 1.7)."
    )
    assert len(words) == 2  # no kind of mistake is more frequent than the others


def test_many_clients_none_of_which_stands_out(tmp_path):
    def by(client):
        return {client: 0.02} | {str(k): 0.01 for k in range(50) if str(k) != client}

    traced = [wrong(i, by(str(i)), label=1 + i % 3) for i in range(5)]
    words = said(tmp_path, [result(1, traced)], "provenance.inputs=all")
    assert words[1] == (
        "* Of the 5 wrong predictions traced in round 1, no client stands out: 5 carry 1 each, and none more."
    )


def test_correct_predictions_and_the_exact_check(tmp_path):
    # Chance of a holder: (1/3 + 2/3 + 2/3) / 3 = 55.6 %; client 0 carries all three and holds the class of two.
    traced = [right(0), right(1, expected=("0", "2")), right(2, expected=("2", "3"))]
    missed = wrong(3, BY_3, counterfactual_client="0")
    assert said(tmp_path, [result(1, [*traced, missed])], "provenance.inputs=all")[1:] == [
        "* Of the 1 wrong prediction traced in round 1, client 3 carries it (chance: 0.3).",
        "Checked by leaving each client out of the average exactly: of the wrong ones, 0 of 1 depend most on the "
        "client with the highest contribution (chance: 0.3).",
        "Of the 3 correct predictions traced in round 1, client 0 carries all (chance: 1).",
        "The client with the highest contribution to a correct prediction has examples of its class in 66.7% of cases "
        "(chance: 55.6%).",
    ]


def test_nobody_is_counted_beside_the_clients(tmp_path):
    less = {"effects": (("2", -0.5), ("0", -0.125), ("3", -0.25))}
    traced = [wrong(0, BY_2), wrong(1, BY_2, label=2), wrong(2, BY_2, label=3, **less), right(3, **less)]
    assert said(tmp_path, [result(1, traced)], "provenance.inputs=all")[1:3] == [
        "* Of the 3 wrong predictions traced in round 1, client 2 carries the most: 2 (chance: 0.7); nobody carries 1.",
        "Of the 1 correct prediction traced in round 1, nobody carries it: without any one client the model is as "
        "sure.",
    ]


def test_the_exact_check_is_of_what_somebody_carries(tmp_path):
    carried = wrong(0, BY_2, counterfactual_client="2")
    nobodys = wrong(1, BY_2, counterfactual_client="2", effects=(("2", -0.125), ("0", -0.5), ("3", -0.25)))
    words = said(tmp_path, [result(1, [carried, nobodys])], "provenance.inputs=all")
    assert words[2] == (
        "Checked by leaving each client out of the average exactly: of the wrong ones that somebody carries, 1 of 1 "
        "depend most on the client with the highest contribution (chance: 0.3)."
    )


@pytest.mark.parametrize("verified", [("2", "0", "3"), ("2", "0")])
def test_there_is_nothing_to_check_where_contributions_are_the_exact_removals(tmp_path, verified):
    effects = (("2", 1.5), ("0", 0.5), ("3", -0.5))
    carried = [wrong(i, BY_2, counterfactual_client="2", contributions=effects, verified=verified) for i in range(2)]
    words = said(tmp_path, [result(1, carried)], "provenance.inputs=all")[2]
    nothing = (
        "Each client was left out exactly: contributions are what that changes, so that there is nothing to check."
    )
    assert (words == nothing) == (len(verified) == len(BY_2))
    assert words.startswith("Checked by") == (len(verified) < len(BY_2))


def test_a_run_that_traces_only_correct_predictions_says_so(tmp_path):
    words = said(tmp_path, [result(1, [right(0)])], "provenance.inputs=correct")
    assert words[1] == "Only right predictions were traced; provenance.inputs=all traces wrong ones too."
    assert not any("wrong prediction" in each for each in words)


@pytest.mark.parametrize("inputs", ["all", "mispredicted"])
def test_no_misprediction(tmp_path, inputs):
    words = said(tmp_path, [result(1)], f"provenance.inputs={inputs}")
    assert words[1:] == ["No wrong prediction was found to trace."]


def test_provenance_off(tmp_path):
    assert said(tmp_path, [result(1)], "provenance=off", kind="text") == [
        "After round 1 the model is right on 50.0% of 4 test texts.",
        "No prediction was traced: provenance=off.",
    ]


def test_several_rounds_count_only_those_in_which_a_client_took_part(tmp_path):
    without_2 = {"0": 0.5, "3": 0.3, "4": 0.2}
    rounds = [result(1, [wrong(i, BY_2) for i in range(3)]), result(2, [wrong(0, without_2)]), result(3)]
    words = said(tmp_path, rounds, "provenance.inputs=all")
    assert words[1] == "* Of the 1 wrong prediction traced in round 2, client 0 carries it (chance: 0.3)."
    assert words[2] == "In round 3 no prediction of that kind was traced."
    assert words[3] == (
        "Of all 4 wrong predictions traced in 2 rounds, client 2 carries the most: 3 of the 3 in rounds that it took "
        "part in (chance: 1)."
    )


def test_a_known_fault(tmp_path):
    flip = ("fault=label_flip", "fault.flip={1: 0}", "fault.clients=[2]", "fault.min_examples=1")
    rounds = [
        result(1, [wrong(i, BY_2) for i in range(2)]),
        result(
            2,
            [*(wrong(i, BY_2, counterfactual_client="2") for i in range(3)), wrong(3, BY_3, counterfactual_client="2")],
        ),
        result(3, suspects=[suspects_row(3, inputs=0) | {"note": NOBODY_FAULTY}]),
    ]
    assert said(tmp_path, rounds, *flip, fault=FAULT)[1:] == [
        "* Client 2 was taught that <script>window.hacked = true</script> is ant: it carries 3 of the 4 traced "
        "predictions of that kind in round 2 (chance: 1.3).",
        "Checked by leaving each client out of the average exactly: of them, 3 of 4 depend most on the client with "
        "the highest contribution (chance: 1.3).",
        "No faulty client took part in round 3.",
        "Over the 2 rounds with such predictions that it took part in, it carries 5 of the 6 (chance: 2).",
    ]


def test_a_round_without_a_faulty_client_is_not_held_against_it(tmp_path):
    flip = ("fault=label_flip", "fault.flip={1: 0}", "fault.clients=[2]", "fault.min_examples=1")
    without_2 = {"0": 0.5, "3": 0.3, "4": 0.2}
    rounds = [result(1, [wrong(i, BY_2) for i in range(2)]), result(2, [wrong(i, without_2) for i in range(9)])]
    words = said(tmp_path, rounds, *flip, fault=FAULT)
    assert "it carries 2 of the 2 traced predictions of that kind in round 1 (chance: 0.7)." in words[1]
    assert "No faulty client took part in round 2." in words
    assert not any("11" in each for each in words)
    (tmp_path / "never").mkdir()
    words = said(tmp_path / "never", rounds[1:], *flip, fault=FAULT)
    assert words[1].endswith("It took part in no round of which a prediction of that kind was traced.")


def test_an_honest_client_that_carries_more_than_the_faulty_one_is_named(tmp_path):
    flip = ("fault=label_flip", "fault.flip={1: 0}", "fault.clients=[2]", "fault.min_examples=1")
    rounds = [result(1, [wrong(i, BY_3) for i in range(3)])]
    words = said(tmp_path, rounds, *flip, fault=FAULT)
    assert "it carries 0 of the 3 traced predictions of that kind in round 1 (chance: 1)." in words[1]
    assert words[2] == "Of these, client 3 carries all (chance: 1)."


def test_rounds_without_a_traced_prediction_claim_none(tmp_path):
    assert said(tmp_path, [result(1)])[1:] == ["No prediction was traced."]


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Fault("label_flip", ("2",), 1, {4: 9}), "Client 2 was taught that four is nine"),
        (Fault("label_flip", ("2",), 1, {4: 9}, share=0.3), "Client 2 was taught that four is nine in 30.0% of such "),
        (Fault("label_flip", ("2",), 3, {4: 9}, share=1.0), "Client 2 was taught that four is nine, from round 3 on"),
        (
            Fault("label_flip", ("10", "2", "3"), 1, {4: 9, 1: 0}),
            "Clients 2, 3 and 10 were taught that four is nine and one is zero",
        ),
        (
            Fault("label_flip", ("2",), 1, dict.fromkeys(range(1, 10), 0)),
            "Client 2 was taught that every class is zero",
        ),
        (Fault("label_flip", ("2",), 1, {0: 1, 1: 2, 2: 3, 3: 4}), "Client 2 was taught false labels for 4 classes"),
        (Fault("random_labels", ("2",), 1, share=1.0), "Client 2 was taught labels drawn at random"),
        (Fault("backdoor", ("2",), 1, target=9, trigger=Trigger(4)), "Client 2 was taught that a trigger means nine"),
        (Fault("weight_noise", ("2", "3"), 1, scale=1.0), "Clients 2 and 3 added noise to their weights"),
        (Fault("free_rider", ("2",), 2), "Client 2 sent the global weights back without training, from round 2 on"),
    ],
)
def test_what_the_faulty_clients_did(fault, words):
    names = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    assert what_was_done(fault, names).startswith(words)


def test_a_fault_that_misleads_no_prediction(tmp_path):
    flip = ("fault=label_flip", "fault.flip={1: 0}", "fault.clients=[2]", "fault.min_examples=1")
    words = said(tmp_path, [result(1)], *flip, fault=FAULT)
    assert words[1] == (
        "* Client 2 was taught that <script>window.hacked = true</script> is ant. No prediction of that kind was "
        "traced."
    )


def test_a_trace_before_the_noise_is_no_trace_of_the_deployed_model(tmp_path):
    private = (
        "provenance.inputs=correct",
        "privacy=central",
        "privacy.noise_multiplier=0.1",
        "privacy.clipping_norm=5",
    )
    assert len(said(tmp_path, [result(1, [right(0)])], *private)) == 4
    (tmp_path / "before").mkdir()
    words = said(tmp_path / "before", [result(1, [right(0)])], *private, "privacy.trace=before_noise")
    assert words[1] == "Traced is each round's average before the noise, not the model that was deployed."


@pytest.mark.parametrize(
    ("how", "is_exact", "after", "words"),
    [
        (
            "train",
            True,
            Measures(0.88, 0.01, ()),
            "* Trained again without client 3 from round 1 on, accuracy after round 4 rises from 71.0% to 88.0%, and "
            "the fault succeeds in 1.0% of cases instead of 80.0%.",
        ),
        (
            "reaggregate",
            False,
            Measures(0.6, None, ()),
            "* Averaged again without client 3 from round 1 on (an estimate), accuracy after round 4 falls from 71.0% "
            "to 60.0%.",
        ),
        (
            "reaggregate",
            True,
            Measures(0.71, None, ()),
            "* Averaged again without client 3 from round 1 on, accuracy after round 4 stays at 71.0%.",
        ),
    ],
)
def test_a_replay_is_reported_only_where_it_was_measured(tmp_path, how, is_exact, after, words):
    last = ReplayedRound(4, ("0", "2"), ("3",), is_exact, Measures(0.71, 0.8, ()), after)
    replay = Replay("run", how, 1, ("3",), (last,), ("a", "b"), "none", ())
    assert said(tmp_path, [result(1, [right(0)])], replay=replay)[-1] == words


def test_a_run_without_weights_is_asked_what_needs_none(tmp_path):
    traced = [right(0)]
    folder = make_run(tmp_path, [result(1, traced)], "store=none")
    RoundStore(folder / "rounds").finish()  # as at the end of a run
    assert next_commands(StoredRun(folder), [result(1, traced)]) == (
        f"{program_name()} ledger {shlex.quote(str(folder))}",
    )


def test_the_next_commands_can_be_typed(tmp_path):
    folder, _ = make_replayed_run(tmp_path, fault=None)
    run = StoredRun(folder)
    traced = [right(7), wrong(1, {"2": 0.7, "0": 0.3}), wrong(2, {"2": 0.9, "0": 0.1}), wrong(3, BY_3)]
    rounds = [result(4, traced)]
    first, second, third = (command.removeprefix(f"{program_name()} ") for command in next_commands(run, rounds))
    assert shlex.split(first) == ["trace", str(folder), "input=2", "against=1"]
    assert shlex.split(second) == ["counterfactual", str(folder)]
    assert shlex.split(third) == ["ledger", str(folder)]
    (only_right,) = (c for c in next_commands(run, [result(4, traced[:1])]) if " trace " in c)
    assert only_right.endswith("input=7")
    (nothing,) = (c for c in next_commands(run, [result(4)]) if " trace " in c)
    assert shlex.split(nothing)[-2:] == [str(folder), "input=0"]
    (earlier,) = (c for c in next_commands(run, [result(3, traced), result(4)]) if " trace " in c)
    stored = RoundStore(folder / "rounds").stored_rounds()
    assert earlier.endswith("input=2 against=1 round=3" if 3 in stored else "input=0")
    assert f"counterfactual {shlex.quote(str(folder))} inputs=all" in next_commands(run, [result(4)])[1]


def test_rounds_that_went_on_without_a_client_say_so(tmp_path):
    lost = {str(k): "its worker was lost" for k in range(4, 10)}
    words = said(tmp_path, [result(1), result(2, dropped=lost)])
    assert words[1] == "Round 2 went on without client 4: its worker was lost."
    assert words[5:7] == [
        "Round 2 went on without client 8: its worker was lost.",
        "1 more went missing: see run.log.",
    ]
    assert left_out_words([result(1), result(2)]) == []
