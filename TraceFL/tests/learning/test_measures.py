"""Accuracy of each class and attack success, by hand and by a slow reading of what a fault wants."""

import pytest
import torch
from torch import nn

from tracefl.learning.examples import Examples
from tracefl.learning.faults import Fault, Trigger
from tracefl.learning.measures import Measures, attack_success, class_accuracy, measure, measure_columns, read_measures

LABELS = torch.tensor([0, 0, 1, 1, 1, 2, 2, 2, 2])
PREDICTED = torch.tensor([0, 1, 1, 2, 2, 2, 2, 1, 0])
FLIP = Fault("label_flip", ("1",), from_round=1, flips={1: 2}, share=1.0)
BOTH = Fault("label_flip", ("1",), from_round=1, flips={1: 2, 2: 0}, share=0.3)
BACKDOOR = Fault("backdoor", ("1",), from_round=1, target=2, trigger=Trigger(size=1), share=0.5)


def test_the_classes():
    assert class_accuracy(LABELS, PREDICTED, 4) == (1 / 2, 1 / 3, 2 / 4, None)


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (FLIP, 2 / 3),  # two of three ones are called 2
        (BOTH, 3 / 7),  # and one of four twos 0
        (BACKDOOR, 2 / 5),  # of the five that are no 2
    ],
)
def test_attack_success(fault, expected):
    assert attack_success(fault, LABELS, PREDICTED) == pytest.approx(expected)


@pytest.mark.parametrize("fault", [FLIP, BOTH, BACKDOOR])
def test_attack_success_is_what_is_misled_of_what_could_be(fault):
    generator = torch.Generator().manual_seed(3)
    labels, predicted = torch.randint(4, (2, 200), generator=generator)
    could = [fault.target != int(label) if fault.target is not None else int(label) in fault.flips for label in labels]
    wants = [fault.target if fault.target is not None else fault.flips.get(int(label)) for label in labels]
    did = [c and int(p) == w for c, p, w in zip(could, predicted, wants, strict=True)]
    assert attack_success(fault, labels, predicted) == sum(did) / sum(could)
    assert sum(did) == int(fault.misled(labels, predicted).sum())


@pytest.mark.parametrize("name", ["random_labels", "weight_noise", "free_rider"])
def test_a_fault_without_an_aim_has_no_attack_success(name):
    assert attack_success(Fault(name, ("1",), from_round=1), LABELS, PREDICTED) is None


def test_nothing_to_aim_at():
    assert attack_success(FLIP, torch.tensor([0, 2]), torch.tensor([2, 2])) is None
    assert attack_success(BACKDOOR, torch.tensor([2, 2]), torch.tensor([2, 2])) is None


def test_a_backdoor_is_measured_with_its_trigger():
    # Three grey pixels, the class is the brightest; the trigger makes the last white.
    pixels = torch.tensor([[200, 0, 0], [0, 200, 0], [0, 0, 200], [255, 0, 0]], dtype=torch.uint8).view(4, 1, 1, 3)
    labels = torch.tensor([0, 1, 2, 0])
    server = Examples({"pixels": pixels}, labels, torch.arange(4), (0.0,), (1.0,))
    model = nn.Sequential(nn.Flatten(), nn.Linear(3, 3))
    model.load_state_dict({"1.weight": torch.eye(3), "1.bias": torch.tensor([0.1, 0.0, 0.0])})
    # With the trigger pixel 2 is 1. Examples 0 and 1 give their own class 200 / 255 + 0.1 = 0.88 and 0.78: both follow.
    # Example 3 gives class 0 1.1, and does not. Without the trigger all are right.
    assert measure(model, server, 3, BACKDOOR) == Measures(1.0, 2 / 3, (1.0, 1.0, 1.0))
    assert measure(model, server, 3) == Measures(1.0, None, (1.0, 1.0, 1.0))
    assert measure(model, server, 3, FLIP).attack_success == 0.0


def test_a_row_holds_the_measures():
    measures = Measures(0.5, 0.25, (0.5, None, 1.0))
    row = {"global_accuracy": 0.5, **measure_columns(measures)}
    assert row["class_accuracy"] == "0:0.5 2:1"
    assert read_measures(row, 3) == measures
    with pytest.raises(ValueError, match="could not convert"):
        read_measures(row | {"class_accuracy": "0:x"}, 3)
