"""Files of one run fit one another: numbers of classes, clients, examples and tokens."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.helpers.random_rounds import result
from tests.helpers.tables import whole_row
from tracefl.errors import RecordError
from tracefl.learning.examples import Examples
from tracefl.learning.faults import Fault, Trigger
from tracefl.records.fitting import check_examples, check_fault, check_result

LABELS, ROWS = torch.tensor([0, 1, 2]), torch.arange(3)
IMAGES = Examples({"pixels": torch.zeros(3, 3, 8, 8, dtype=torch.uint8)}, LABELS, ROWS, (0.5,) * 3, (0.5,) * 3)
TOKENS = {"input_ids": torch.tensor([[1, 2], [9, 0], [3, 3]]), "attention_mask": torch.tensor([[1, 1], [1, 0], [1, 1]])}
TEXTS = Examples(TOKENS, LABELS, ROWS)
FILE = Path("run/file.json")
FLIP = Fault("label_flip", ("2",), 1, flips={1: 0}, share=1.0)
BACKDOOR = Fault("backdoor", ("2",), 1, target=1, trigger=Trigger(size=4), share=0.5)
NOISE = Fault("weight_noise", ("0", "9"), 1, scale=0.5)


def test_examples_that_fit():
    check_examples(IMAGES, "image", 3, None)
    check_examples(TEXTS, "text", 3, 10)
    check_examples(TEXTS, "text", 3, None)  # a model that does not say how many ids it has


@pytest.mark.parametrize(
    "labels",
    [torch.tensor([0, 1, 3]), torch.tensor([-1, 0, 1]), LABELS.int(), LABELS.float(), LABELS[None], LABELS[:0]],
)
@pytest.mark.parametrize(("examples", "kind"), [(IMAGES, "image"), (TEXTS, "text")])
def test_labels_that_are_no_classes(examples, kind, labels):
    with pytest.raises(ValueError, match="its labels are not numbers of 3 classes"):
        check_examples(replace(examples, labels=labels), kind, 3, 10)


@pytest.mark.parametrize(
    "change",
    [
        {"features": {"pixels": torch.zeros(3, 1, 8, 8, dtype=torch.uint8)}},
        {"features": {"pixels": torch.zeros(3, 3, 8, 8)}},
        {"features": {"pixels": torch.zeros(3, 3, 8, 9, dtype=torch.uint8)}},
        {"features": {"pixels": torch.zeros(3, 3, 0, 0, dtype=torch.uint8)}},
        {"features": {"pixels": torch.zeros(3, 3, 8, dtype=torch.uint8)}},
        {"features": {**IMAGES.features, "more": LABELS}},
        {"features": TOKENS},
        *({"mean": (0.5,)}, {"mean": (0.5, float("nan"), 0.5)}, {"std": (0.5, 0.0, 0.5)}, {"std": (0.5, -1, 0.5)}),
        {"std": (float("inf"),) * 3},
    ],
)
def test_images_that_are_none(change):
    with pytest.raises(ValueError, match="^its |^it holds "):
        check_examples(replace(IMAGES, **change), "image", 3, None)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"input_ids": torch.tensor([[1, 2], [10, 0], [3, 3]])}, "numbers of the model's vocabulary of 10"),
        ({"input_ids": torch.tensor([[1, 2], [-1, 0], [3, 3]])}, "numbers of the model's vocabulary of 10"),
        ({"input_ids": TOKENS["input_ids"].float()}, "numbers of the model's vocabulary of 10"),
        ({"attention_mask": torch.tensor([[1, 1], [0, 0], [1, 1]])}, "its masks are not those of its texts"),
        ({"attention_mask": torch.tensor([[1, 1], [1, 2], [1, 1]])}, "its masks are not those of its texts"),
        ({"attention_mask": torch.ones(3, 3, dtype=torch.int64)}, "its masks are not those of its texts"),
        ({"more": LABELS}, "it holds no texts"),
        ({"input_ids": LABELS}, "it holds no texts"),
    ],
)
def test_texts_that_are_none(change, words):
    with pytest.raises(ValueError, match=words):
        check_examples(replace(TEXTS, features={**TOKENS, **change}), "text", 3, 10)


def test_the_kinds_are_not_taken_for_each_other():
    with pytest.raises(ValueError, match="no images"):
        check_examples(TEXTS, "image", 3, 10)
    with pytest.raises(ValueError, match="no texts"):
        check_examples(IMAGES, "text", 3, 10)


@pytest.mark.parametrize(
    ("fault", "kind"),
    [(FLIP, "image"), (BACKDOOR, "image"), (NOISE, "text"), (replace(BACKDOOR, trigger=Trigger(token=3)), "text")],
)
def test_faults_that_fit(fault, kind):
    check_fault(fault, kind, (10, 3), FILE)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (replace(FLIP, clients=("10",)), "clients 10, and the run's are 0 to 9"),
        (replace(FLIP, clients=()), r"clients \(none\), and the run's are 0 to 9"),
        (replace(FLIP, flips={1: 3}), "class 3, and the run's are 0 to 2"),
        (replace(FLIP, flips={3: 1}), "class 3, and the run's are 0 to 2"),
        (replace(BACKDOOR, target=3), "class 3, and the run's are 0 to 2"),
        (replace(BACKDOOR, target=None), "a target and a trigger, or lacks them"),
        (replace(BACKDOOR, trigger=None), "a target and a trigger, or lacks them"),
        (replace(FLIP, target=1, trigger=Trigger(size=4)), "a target and a trigger, or lacks them"),
        (replace(BACKDOOR, trigger=Trigger(token=4)), "a trigger that is none for images"),
        (replace(NOISE, scale=None), "what another fault has"),
        (replace(NOISE, share=0.5), "what another fault has"),
        (replace(FLIP, share=None), "what another fault has"),
        (replace(FLIP, scale=0.5), "what another fault has"),
    ],
)
def test_a_fault_of_another_run(fault, words):
    with pytest.raises(RecordError, match=f"^{FILE} is damaged: it has {words}; use another copy"):
        check_fault(fault, "image", (10, 3), FILE)


def fits(found, clients=10, classes=10, examples=100):
    check_result(found, (clients, classes), examples, FILE)


def test_a_result_that_fits():
    fits(result())


def with_input(**changes):
    return replace(result(), traced=tuple(replace(each, **changes) for each in result().traced))


MITIGATED = {"round": 1, "client": "10"}


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (replace(result(), client_weights={}), "no client"),
        (replace(result(), client_weights={"10": 1.0}), "client 10, and the run's are 0 to 9"),
        (replace(result(), dropped={"11": "silent"}), "client 11, and the run's are 0 to 9"),
        (replace(result(), mitigation=(MITIGATED,)), "client 10, and the run's are 0 to 9"),
        (with_input(expected_clients=("3", "12")), "client 12, and the run's are 0 to 9"),
        (with_input(label=10), "class 10, and the run's are 0 to 9"),
        (with_input(predicted=10), "class 10, and the run's are 0 to 9"),
        (replace(result(), row=whole_row(round=1, class_accuracy="0:1 10:0.5")), "class 10, and the run's are 0 to 9"),
        (with_input(input_index=100), "input 100, and the server's are 0 to 99"),
    ],
)
def test_a_result_of_another_run(found, words):
    with pytest.raises(RecordError, match=f"^{FILE} is damaged: it names {words}; use another round"):
        fits(found)
