"""Faults in words."""

import pytest

from tests.helpers.made_runs import FLIP
from tracefl.conf.constraints import read_value
from tracefl.learning.faults.settings import AnyFault
from tracefl.learning.faults.words import describe_fault, fault_share, faulty_clients


def fault(**changed):
    return read_value(AnyFault | None, FLIP | changed, "fault")


@pytest.mark.parametrize(
    ("changed", "words", "share"),
    [
        ({}, "label_flip 100 %, 1 of 10", 1.0),
        ({"share": 0.1, "clients": [0, 3]}, "label_flip 10 %, 2 of 10", 0.1),
        ({"num_clients": 3, "clients": None}, "label_flip 100 %, 3 of 10", 1.0),
        ({"clients": None}, "label_flip 100 %, 1 of 10", 1.0),
        ({"flip": {1: 0, 2: 0}}, "label_flip 1>0 2>0 100 %, 1 of 10", 1.0),
        ({"from_round": 5}, "label_flip 100 %, 1 of 10, from round 5", 1.0),
        ({"name": "backdoor", "share": 0.5, "target": 0}, "backdoor 50 %, 1 of 10", 0.5),
        ({"name": "random_labels", "share": 0.25}, "random_labels 25 %, 1 of 10", 0.25),
        ({"name": "free_rider", "share": None, "scale": 0}, "free_rider scale=0, 1 of 10", None),
        ({"name": "weight_noise", "share": None, "scale": 2}, "weight_noise scale=2, 1 of 10", None),
    ],
)
def test_words(changed, words, share):
    assert describe_fault(fault(**changed), 10) == words
    assert fault_share(fault(**changed)) == share


def test_no_fault():
    assert describe_fault(None, 10) == "none"
    assert fault_share(None) is None
    assert faulty_clients(None) == 0


def test_faults_that_differ_do_not_read_the_same():
    words = [
        describe_fault(fault(**changed), 10)
        for changed in (
            {"all_to": 0},
            {"all_to": 3},
            {"name": "backdoor", "target": 2},
            {"name": "backdoor", "target": 2, "trigger_size": 4},
            {"name": "backdoor", "target": 0, "trigger_size": 5},
            {"name": "backdoor", "target": 0, "trigger_token": 0},
            {"name": "free_rider", "scale": 0.1, "share": None},
        )
    ]
    assert words == [
        "label_flip 100 %, 1 of 10",
        "label_flip all>3 100 %, 1 of 10",
        "backdoor target=2 100 %, 1 of 10",
        "backdoor target=2 100 %, 1 of 10",
        "backdoor trigger_size=5 100 %, 1 of 10",
        "backdoor trigger_token=0 100 %, 1 of 10",
        "free_rider scale=0.1, 1 of 10",
    ]
