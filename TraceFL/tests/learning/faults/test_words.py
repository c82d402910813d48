"""Faults in words."""

import pytest

from tests.helpers.made_runs import FLIP
from tracefl.learning.faults.words import describe_fault, fault_share, faulty_clients


@pytest.mark.parametrize(
    ("changed", "words", "share"),
    [
        ({}, "label_flip 100 %, 1 of 10", 1.0),
        ({"share": 0.1, "clients": [0, 3]}, "label_flip 10 %, 2 of 10", 0.1),
        ({"num_clients": 3, "clients": None}, "label_flip 100 %, 3 of 10", 1.0),
        ({"clients": None}, "label_flip 100 %, 1 of 10", 1.0),
        ({"flip": {1: 0, 2: 0}}, "label_flip 1>0 2>0 100 %, 1 of 10", 1.0),
        ({"from_round": 5}, "label_flip 100 %, 1 of 10, from round 5", 1.0),
        ({"name": "backdoor", "share": 0.5}, "backdoor 50 %, 1 of 10", 0.5),
        ({"name": "random_labels", "share": 0.25}, "random_labels 25 %, 1 of 10", 0.25),
        ({"name": "free_rider", "share": None}, "free_rider, 1 of 10", None),
        ({"name": "weight_noise", "share": None}, "weight_noise, 1 of 10", None),
        ({"name": "none", "share": None}, "none", None),
    ],
)
def test_words(changed, words, share):
    config = {"fault": FLIP | changed, "num_clients": 10}
    assert describe_fault(config) == words
    assert fault_share(config) == share


def test_a_run_from_before_there_were_faults_has_none():
    assert describe_fault({"num_clients": 10}) == "none"
    assert fault_share({"num_clients": 10}) is None
    assert faulty_clients({"num_clients": 10}) == 0


def test_faults_that_differ_do_not_read_the_same():
    words = [
        describe_fault({"fault": FLIP | changed, "num_clients": 10})
        for changed in (
            {"all_to": 0},
            {"all_to": 3},
            {"name": "backdoor", "target": 2},
            {"name": "free_rider", "scale": 0.1},
        )
    ]
    assert words == [
        "label_flip 100 %, 1 of 10",
        "label_flip all>3 100 %, 1 of 10",
        "backdoor target=2 100 %, 1 of 10",
        "free_rider scale=0.1 100 %, 1 of 10",
    ]


def test_an_unchecked_list_of_clients_is_counted_as_one():
    assert faulty_clients({"fault": FLIP | {"clients": 3}, "num_clients": 10}) == 1
