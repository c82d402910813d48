"""A model's accuracy on the server's examples, overall and by class, and the success of a fault's attack.

Attack success is the fraction of a fault's targeted examples that are predicted as the fault intends. For label_flip,
the targeted examples are those of flipped labels, and the intended prediction is the label that theirs was flipped to.
For a backdoor, they are the examples of all classes but the target, with the trigger on them, and the intended
prediction is the target (Gu et al. 2017). Even without a fault, a model that confuses two classes has an attack success
above 0. Needs torch alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tracefl.learning.examples import Examples
from tracefl.learning.faults import Fault
from tracefl.learning.training import Evaluation, evaluate


@dataclass(frozen=True)
class Measures:
    """How a model does on the server's examples, as fractions from 0 to 1.

    Attributes:
        accuracy: Fraction of all examples predicted correctly.
        attack_success: See above; None without a fault that targets a class, or without targeted examples.
        class_accuracy: Fraction of each class's examples predicted correctly, None for a class without examples.
    """

    accuracy: float
    attack_success: float | None
    class_accuracy: tuple[float | None, ...]


def measure(
    model: nn.Module,
    server: Examples,
    num_classes: int,
    fault: Fault | None = None,
    device: str = "cpu",
    evaluation: Evaluation | None = None,
) -> Measures:
    """Measure a model.

    Args:
        model: Returns logits ``(B, C)``; left on ``device``, in evaluation mode.
        server: The server's N examples.
        num_classes: C.
        fault: The injected fault; None without one.
        device: Where to compute.
        evaluation: The model's evaluation on ``server``, if already known.
    """
    evaluation = evaluate(model, server, device=device) if evaluation is None else evaluation
    success = None
    if fault is not None:
        inputs = fault.inputs(server)
        predicted = evaluation.predicted if inputs is server else evaluate(model, inputs, device=device).predicted
        success = attack_success(fault, server.labels, predicted)
    by_class = class_accuracy(server.labels, evaluation.predicted, num_classes)
    return Measures(evaluation.accuracy, success, by_class)


def attack_success(fault: Fault, labels: Tensor, predicted: Tensor) -> float | None:
    """Return the fraction of a fault's targeted examples that are predicted as it intends.

    Args:
        fault: The fault.
        labels: ``(N,)`` int64 true classes of the server's examples.
        predicted: ``(N,)`` int64 classes predicted for ``fault.inputs(server)``.

    Returns:
        The fraction; None if no examples are targeted, or for a fault that targets no class (random labels, weight
        noise, free rider), whose effect shows in the accuracy.
    """
    flipped = torch.tensor(list(fault.flips), dtype=labels.dtype)
    aimed_at = torch.isin(labels, flipped) if fault.target is None else labels.ne(fault.target)
    number = int(aimed_at.sum())
    return int((fault.misled(labels, predicted) & aimed_at).sum()) / number if number else None


def class_accuracy(labels: Tensor, predicted: Tensor, num_classes: int) -> tuple[float | None, ...]:
    """Return the fraction of each class's examples predicted correctly, None for a class without examples.

    Args:
        labels: ``(N,)`` int64 true classes.
        predicted: ``(N,)`` int64 predicted classes.
        num_classes: C, the length of the result.
    """
    held = labels.bincount(minlength=num_classes).tolist()
    right = labels[labels == predicted].bincount(minlength=num_classes).tolist()
    return tuple(r / n if n else None for r, n in zip(right, held, strict=True))


def measure_columns(measures: Measures) -> dict[str, Any]:
    """Return a round's columns other than the accuracy, with the accuracy by class as text such as ``0:0.75 2:1``."""
    known = enumerate(measures.class_accuracy)
    by_class = " ".join(f"{number}:{fraction:.6g}" for number, fraction in known if fraction is not None)
    return {"class_accuracy": by_class, "attack_success": measures.attack_success}


def read_measures(row: Mapping[str, Any], num_classes: int) -> Measures:
    """Read the measures from a round's row.

    Raises:
        ValueError: The row is damaged.
    """
    known = dict(pair.split(":") for pair in row["class_accuracy"].split())
    by_class = tuple(float(known[str(n)]) if str(n) in known else None for n in range(num_classes))
    return Measures(row["global_accuracy"], row["attack_success"], by_class)
