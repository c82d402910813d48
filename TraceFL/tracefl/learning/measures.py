"""A model's accuracy on the server's examples, in all and by class, and the success of a fault's attack.

Attack success is the share of the examples that a fault aims at which are predicted as it wants. Flipped labels: of the
examples of a class whose label was flipped, those predicted as the label that it became. Backdoor: of the examples of
other classes, those predicted as the target once the trigger is in them (Gu et al. 2017). A model that confuses two
classes without any fault has some too. Needs torch alone.
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
    """A model on the server's examples; fractions 0 to 1.

    Attributes:
        accuracy: Of all examples predicted correctly.
        attack_success: See above; None without a fault that aims at a class, or an example that it aims at.
        class_accuracy: Of each class's examples predicted correctly, None for a class without any.
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
        model: Gives logits ``(B, C)``; afterwards on ``device``, in evaluation mode.
        server: The server's N examples.
        num_classes: C.
        fault: The injected fault; None without one.
        device: Where to compute.
        evaluation: The model's on ``server``, where it is already known.
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
    """Return the share of the examples that a fault aims at which are predicted as it wants.

    Args:
        fault: The fault.
        labels: ``(N,)`` int64 true classes of the server's examples.
        predicted: ``(N,)`` int64 classes predicted of ``fault.inputs(server)``.

    Returns:
        None for a fault that aims at no class (random labels, weight noise, a free rider: what they do shows in the
        accuracy), and where it aims at none of the examples.
    """
    flipped = torch.tensor(list(fault.flips), dtype=labels.dtype)
    aimed_at = torch.isin(labels, flipped) if fault.target is None else labels.ne(fault.target)
    number = int(aimed_at.sum())
    return int((fault.misled(labels, predicted) & aimed_at).sum()) / number if number else None


def class_accuracy(labels: Tensor, predicted: Tensor, num_classes: int) -> tuple[float | None, ...]:
    """Return the fraction of each class's examples that are predicted correctly, None for a class without any.

    Args:
        labels: ``(N,)`` int64 true classes.
        predicted: ``(N,)`` int64.
        num_classes: C, the length of what is returned.
    """
    held = labels.bincount(minlength=num_classes).tolist()
    right = labels[labels == predicted].bincount(minlength=num_classes).tolist()
    return tuple(r / n if n else None for r, n in zip(right, held, strict=True))


def measure_columns(measures: Measures) -> dict[str, Any]:
    """Return a round's columns besides the accuracy; the classes as text such as ``0:0.75 2:1``."""
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
