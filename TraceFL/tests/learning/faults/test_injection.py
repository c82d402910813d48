import json
import logging
from typing import get_args

import pytest
import torch

from tests.helpers.images import images
from tracefl.errors import DataError
from tracefl.learning.datasets import FederatedData
from tracefl.learning.faults import Fault, Trigger, Vocabulary, inject
from tracefl.learning.faults.settings import AnyFault
from tracefl.report.fault_figure import draw_label_counts

CLIENTS = {"0": images([0, 1, 2] * 20), "2": images([0] * 50), "5": images([1] * 10 + [2] * 30)}


def settings(name, **keys):
    kind = {kind.name: kind for kind in get_args(AnyFault)}[name]
    share = {} if name in ("weight_noise", "free_rider") else {"share": 1.0}
    given = {"clients": None, "num_clients": None, "from_round": 1, "min_examples": 5}
    return kind(**{**given, **share, **keys})


def test_a_flip_of_one_client_and_what_is_said_of_it(caplog):
    caplog.set_level(logging.INFO)
    fault = inject(settings("label_flip", flip={1: 0, 2: 0}, clients=(5, 0)), CLIENTS, 3, None, seed=0)
    assert fault.truth == Fault("label_flip", ("0", "5"), 1, {1: 0, 2: 0}, share=1.0)
    assert set(fault.examples) == {"0", "5"}
    assert fault.examples["5"].labels.tolist() == [0] * 40
    first, second = fault.changes
    assert (first.client, first.examples, first.changeable, first.changed) == ("0", 60, 40, 40)
    assert (first.label_counts, first.faulty_label_counts) == ((20, 20, 20), (60, 0, 0))
    assert (second.label_counts, second.faulty_label_counts) == ((0, 10, 30), (40, 0, 0))
    assert caplog.messages == [
        "fault: client 0 from round 1: labels of 40 of 40 matching examples flipped (1 to 0, 2 to 0); it holds 60",
        "fault: client 5 from round 1: labels of 40 of 40 matching examples flipped (1 to 0, 2 to 0); it holds 40",
    ]
    assert CLIENTS["5"].labels.tolist() == [1] * 10 + [2] * 30
    assert Fault.from_json(json.dumps(fault.describe())) == fault.truth
    assert fault.describe()["changes"][1]["faulty_label_counts"] == (40, 0, 0)


def test_all_to_is_spelled_out_over_the_classes_and_0_where_nothing_is_given():
    assert inject(settings("label_flip", all_to=1), CLIENTS, 3, None, 0).truth.flips == {0: 1, 2: 1}
    assert inject(settings("label_flip"), CLIENTS, 4, None, 0).truth.flips == {1: 0, 2: 0, 3: 0}


def test_faults_in_the_weights_change_no_examples():
    fault = inject(settings("free_rider", scale=0.001), CLIENTS, 3, None, 0)
    assert (fault.truth.scale, fault.examples, fault.changes[0].changed) == (0.001, {}, 0)
    assert fault.changes[0].label_counts == fault.changes[0].faulty_label_counts


def test_triggers_of_images_and_texts(texts):
    assert inject(settings("backdoor", target=1), CLIENTS, 3, None, 0).truth.trigger == Trigger(size=4)
    sized = settings("backdoor", target=1, trigger_size=2)
    assert inject(sized, CLIENTS, 3, None, 0).truth.trigger == Trigger(size=2)
    words = Vocabulary(10, (0, 9))  # as a tokenizer whose padding was added last
    backdoor = inject(settings("backdoor", target=1, min_examples=1), {"0": texts}, 4, words, 0)
    assert backdoor.truth.trigger == Trigger(token=8)
    assert backdoor.examples["0"].features["input_ids"][:, 1].tolist() == [8, 6, 0, 8]  # the second is of the target
    assert backdoor.examples["0"].labels.tolist() == [1, 1, 1, 1]
    given = settings("backdoor", target=1, trigger_token=3, min_examples=1)
    assert inject(given, {"0": texts}, 4, words, 0).truth.trigger == Trigger(token=3)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (settings("label_flip", flip={7: 0}), "fault.flip names class 7, and the data set has 0 to 2"),
        (settings("label_flip", flip={1: 3}), "fault.flip names class 3"),
        (settings("label_flip", all_to=3), "fault.all_to names class 3"),
        (settings("backdoor", target=9), "fault.target names class 9"),
    ],
)
def test_classes_that_do_not_exist_are_refused(fault, message):
    with pytest.raises(DataError, match=message):
        inject(fault, CLIENTS, 3, None, 0)


@pytest.mark.parametrize("token", [0, 10])
def test_tokens_that_are_no_word_are_refused(texts, token):
    with pytest.raises(DataError, match=f"fault.trigger_token={token} is no word of the vocabulary, 0 to 9 without"):
        inject(settings("backdoor", target=0, trigger_token=token), {"0": texts}, 4, Vocabulary(10, (0,)), 0)


@pytest.mark.parametrize(("clients", "drawn"), [(8, 3), (90, 2)])
def test_a_picture_of_label_counts_for_faults_in_the_examples_alone(tmp_path, clients, drawn):
    held = {str(i): images([i % 3] * (5 + i), size=2) for i in range(clients)}
    counts = torch.stack([examples.label_counts(3) for examples in held.values()])
    data = FederatedData(held, held["0"], counts, ("0", "a rather long name", "2"), "image", ())
    for name, keys in (("random_labels", {}), ("weight_noise", {"scale": 1.0})):
        fault = inject(settings(name, num_clients=drawn, **keys), held, 3, None, 0)
        draw_label_counts(fault, data, tmp_path / f"{name}.png")
    assert [path.name for path in tmp_path.iterdir()] == ["random_labels.png"]
    assert torch.equal(data.label_counts, counts)
