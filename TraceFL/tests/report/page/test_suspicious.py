from dataclasses import replace

import pytest

from tests.helpers.made_page import result, suspects_row
from tracefl.report.page.suspicious import suspicious_rounds


def reasons(*rounds):
    return {each.server_round: each.reasons for each in suspicious_rounds(rounds)}


@pytest.mark.parametrize(
    ("localization", "chance", "suspicious"),
    [(0.5, 0.5, True), (0.4, 0.5, True), (0.6, 0.5, False), (1.0, 1.0, False), (None, None, False), (0.5, None, False)],
)
def test_localization_at_or_below_chance(localization, chance, suspicious):
    row = {"localization_accuracy": localization, "chance_accuracy": chance}
    assert bool(reasons(result(1, **row))) == suspicious


@pytest.mark.parametrize(("before", "after", "suspicious"), [(0.6, 0.55, True), (0.6, 0.56, False), (0.5, 0.9, False)])
def test_a_fall_of_the_accuracy(before, after, suspicious):
    found = reasons(result(1, global_accuracy=before), result(2, global_accuracy=after))
    assert list(found) == [2] * suspicious
    if suspicious:
        assert found[2] == ("global accuracy fell from 60.0% to 55.0%",)


def test_a_model_that_broke_has_no_fall():
    assert reasons(result(1), result(2, global_accuracy=float("nan"))) == {}


def test_clients_dropped():
    dropped = {str(k): "it failed" for k in range(5)}
    found = reasons(result(1, dropped=dropped))
    assert found[1] == ("dropped: client 0 (it failed), 1 (it failed), 2 (it failed) and 2 more",)


def test_clients_capped():
    found = reasons(replace(result(1), capped={"4": "its 1000 examples count as 30"}))
    assert found[1] == ("capped: client 4 (its 1000 examples count as 30)",)


def test_estimates_in_doubt():
    found = reasons(replace(result(1), doubt="client 4's update is 7 times the round's median"))
    assert found[1] == ("all clients were left out exactly: client 4's update is 7 times the round's median",)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (suspects_row(1), "4 mispredictions with a faulty client taking part: over them all "
         "provenance names client 2 first, which is faulty"),
        (suspects_row(1, "0:3 2:1", 1, whole=0.0), "1 misprediction with a faulty client taking part: over them all "
         "provenance names client 0 first, which is honest"),
    ],
)  # fmt: skip
def test_a_fault(row, words):
    assert reasons(result(1, (), [row]))[1] == (words,)


def test_a_fault_without_mispredictions_or_without_a_faulty_participant():
    nothing = suspects_row(1, inputs=0), suspects_row(1, faulty=""), suspects_row(1) | {"rule": "krum"}
    assert reasons(result(1, (), nothing)) == {}


def test_most_reasons_come_first():
    both = {"global_accuracy": 0.2, "localization_accuracy": 0.1, "chance_accuracy": 0.5}
    rounds = [result(1, dropped={"0": "it failed"}), result(2), result(3, **both), result(4, dropped={"1": "gone"})]
    assert list(reasons(*rounds)) == [3, 1, 4]
