import re

import pytest

from tests.helpers.configuration import compose_settings
from tracefl.conf.key_text import choices
from tracefl.errors import ConfigError
from tracefl.records.naming import fingerprint

FAULTS = [name for name in choices("fault") if name != "none"]


def test_there_are_the_faults_of_the_issue():
    assert set(FAULTS) == {"label_flip", "random_labels", "backdoor", "weight_noise", "free_rider"}
    assert compose_settings().fault is None


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_composes_with_client_0_as_the_faulty_one(name):
    fault = compose_settings(f"fault={name}").fault
    assert (fault.name, fault.clients, fault.num_clients, fault.from_round) == (name, None, None, 1)
    assert fault.min_examples == 50


def test_keys_arrive_as_they_are_given():
    fault = compose_settings(
        "fault=label_flip", "fault.flip={1: 0, 2: 0}", "fault.clients=[3,0]", "fault.share=0.3", "fault.from_round=2"
    ).fault
    assert (fault.flip, fault.clients, fault.share, fault.from_round) == ({1: 0, 2: 0}, (3, 0), 0.3, 2)
    assert compose_settings("fault=free_rider", "fault.num_clients=10").fault.num_clients == 10
    text = compose_settings("fault=backdoor", "fault.trigger_token=7", "model=gpt", "dataset=synthetic_text").fault
    assert (text.trigger_token, text.target) == (7, 0)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["fault.name=flip"],
            "fault.name must be one of backdoor, free_rider, label_flip, none, random_labels, weight",
        ),
        (["fault.clients=[0]"], r"fault.clients=\[0\] needs a fault, such as fault=label_flip, got fault=none"),
        (
            ["fault=label_flip", "fault.scale=1"],
            "fault.scale=1 needs fault=weight_noise or fault=free_rider, got fault",
        ),
        (["fault=free_rider", "fault.share=0.5"], "fault.share=0.5 needs fault=label_flip or fault=random_labels or"),
        (["fault=backdoor", "fault.flip={1: 0}"], "fault.flip={1: 0} needs fault=label_flip, got fault=backdoor"),
        (["fault=label_flip", "fault.clients=0"], "fault.clients must be a list of different client numbers .*, got 0"),
        (["fault=label_flip", "fault.clients=[]"], "fault.clients must be a list of different client numbers"),
        (["fault=label_flip", "fault.clients=[1,1]"], "fault.clients must be a list of different client numbers"),
        (["fault=label_flip", "fault.clients=[-1]"], "fault.clients must be a list of different client numbers"),
        (["fault=label_flip", "fault.clients=[0,10]"], "names client 10, and num_clients=10 are 0 to 9"),
        (["fault=label_flip", "fault.num_clients=11"], "fault.num_clients=11 is above num_clients=10; lower it"),
        (["fault=label_flip", "fault.num_clients=0"], "fault.num_clients must be a whole number of at least 1"),
        (
            ["fault=label_flip", "fault.num_clients=2", "fault.clients=[0]"],
            "give one of them, and set the other to null",
        ),
        (["fault=label_flip", "fault.from_round=0"], "fault.from_round must be a whole number of at least 1"),
        (["fault=label_flip", "fault.from_round=4"], "fault.from_round=4 is above num_rounds=3; lower it"),
        (["fault=label_flip", "fault.from_round=null"], "fault.from_round is null and fault=label_flip needs it"),
        (["fault=label_flip", "fault.min_examples=0"], "fault.min_examples must be a whole number of at least 1"),
        (["fault=label_flip", "fault.share=0"], r"fault.share must be a number in \(0, 1\]"),
        (["fault=label_flip", "fault.share=1.5"], r"fault.share must be a number in \(0, 1\]"),
        (["fault=label_flip", "fault.flip={}"], r"fault.flip must be a mapping of classes, .*got {}"),
        (["fault=label_flip", "fault.flip={a: 0}"], r"fault.flip must be a mapping of classes"),
        (["fault=label_flip", "fault.flip={1: -1}"], r"fault.flip must be a mapping of classes"),
        (["fault=label_flip", "fault.flip={1: 1}"], "fault.flip={1: 1} flips label 1 to itself"),
        (["fault=label_flip", "fault.flip={1: 0}", "fault.all_to=0"], "fault.flip={1: 0} and fault.all_to=0: give one"),
        (["fault=label_flip", "fault.all_to=-1"], "fault.all_to must be a class, from 0"),
        (["fault=backdoor", "fault.target=null"], "fault.target is null and fault=backdoor needs it"),
        (["fault=backdoor", "fault.trigger_size=33"], "fault.trigger_size=33 is above dataset.image_size=32; lower it"),
        (["fault=backdoor", "dataset.image_size=3"], "fault.trigger_size=4 is above dataset.image_size=3; lower it"),
        (["fault=backdoor", "fault.trigger_token=3"], "fault.trigger_token=3 is for texts; set fault.trigger_size"),
        (
            ["fault=backdoor", "fault.trigger_size=3", "model=gpt", "dataset=synthetic_text"],
            "fault.trigger_size=3 is for images; set fault.trigger_token",
        ),
        (["fault=weight_noise", "fault.scale=0"], "fault.scale must be a number above 0, got 0"),
        (["fault=free_rider", "fault.scale=-1"], "fault.scale must be a number of at least 0"),
    ],
)
def test_illegal_values_are_refused_in_one_line(overrides, message):
    with pytest.raises(ConfigError, match=message) as caught:
        compose_settings(*overrides)
    assert "\n" not in str(caught.value)


def test_a_fault_makes_another_run():
    honest, faulty = (fingerprint(compose_settings(f"fault={name}").resolved) for name in ("none", "label_flip"))
    assert honest != faulty


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ([], ""),
        (["fault=label_flip"], "label_flip-"),
        (["fault=label_flip", "fault.share=0.3", "fault.clients=[0,4]"], "2xlabel_flip0.3-"),
        (["fault=free_rider", "fault.num_clients=3"], "3xfree_rider-"),
        (["fault=backdoor"], "backdoor0.5-"),
    ],
)
def test_the_runs_name_shows_the_fault(overrides, words):
    name = compose_settings(*overrides).folder.name
    assert re.fullmatch(rf"resnet18-digits-alpha0.3-{words}4of10-3r-seed42-[0-9a-f]{{8}}", name)
