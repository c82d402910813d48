import json

import pytest
import torch

from tests.helpers.images import images
from tracefl.errors import RecordError
from tracefl.learning.examples import PIXELS
from tracefl.learning.faults import Fault, Trigger

FLIP = Fault("label_flip", ("0", "12"), 2, {1: 0, 2: 3}, share=0.5)
BACKDOOR = Fault("backdoor", ("4",), 1, target=1, trigger=Trigger(size=2), share=1.0)
RIDER = Fault("free_rider", ("1",), 1, scale=0.001)


@pytest.mark.parametrize("fault", [FLIP, BACKDOOR, RIDER, Fault("backdoor", ("0",), 1, {}, 0, Trigger(token=7), 0.5)])
def test_json_gives_the_fault_back(fault):
    assert Fault.from_json(fault.to_json()) == fault
    more = json.loads(fault.to_json()) | {"changes": []}
    assert Fault.from_json(json.dumps(more)) == fault


@pytest.mark.parametrize("text", ["", "[]", "{}", FLIP.to_json().replace("label_flip", "flip"), "3"])
def test_what_is_no_fault_is_refused_in_one_line(text):
    with pytest.raises(RecordError, match="no description of a fault") as caught:
        Fault.from_json(text)
    assert "\n" not in str(caught.value)


def test_faulty_from_its_round_on_in_the_order_of_the_clients():
    assert FLIP.faulty(["3", "12", "0"], 1).tolist() == [False, False, False]
    assert FLIP.faulty(["3", "12", "0"], 2).tolist() == [False, True, True]
    assert FLIP.faulty(["1", "2"], 3).tolist() == [False, False]
    assert FLIP.faulty([], 3).dtype == torch.bool


def test_what_each_fault_wants_of_a_prediction():
    labels = torch.tensor([0, 1, 1, 1, 2, 2, 3])
    predicted = torch.tensor([0, 0, 1, 3, 3, 0, 1])
    assert FLIP.misled(labels, predicted).tolist() == [False, True, False, False, True, False, False]
    # Of class 1 none can be misled to class 1; only the last of the others is predicted as it.
    assert BACKDOOR.misled(labels, predicted).tolist() == [False] * 6 + [True]
    assert RIDER.misled(labels, predicted).tolist() == [False, True, False, True, True, True, True]


def test_a_backdoor_is_asked_with_its_trigger_and_other_faults_without():
    server = images([0, 1, 2])
    assert FLIP.inputs(server) is server
    asked = BACKDOOR.inputs(server)
    assert (asked.features[PIXELS][:, :, 4:, 4:] == 255).all()
    assert torch.equal(asked.labels, server.labels)
