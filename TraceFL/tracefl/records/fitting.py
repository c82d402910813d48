"""Whether the files of a run's folder fit one another: numbers of classes, clients, examples and tokens."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from tracefl.errors import RecordError
from tracefl.learning.examples import PIXELS, Examples
from tracefl.learning.faults import ClientChange, Fault
from tracefl.records.result import RoundResult

_TOKENS = ("input_ids", "attention_mask")
_WHOLE = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def check_examples(examples: Examples, kind: str, classes: int, vocabulary: int | None) -> None:
    """Check the server's examples.

    Args:
        examples: The examples.
        kind: ``image`` or ``text``.
        classes: Number of classes.
        vocabulary: Number of ids that a text model has; None for images.

    Raises:
        ValueError: They are not such examples.
    """
    labels, features = examples.labels, examples.features
    if labels.dtype != torch.int64 or labels.ndim != 1 or not len(labels) or not _are_below(labels, classes):
        raise ValueError(f"its labels are not numbers of {classes} classes")
    if kind == "image":
        pixels = features.get(PIXELS)
        if set(features) != {PIXELS} or pixels is None or pixels.dtype != torch.uint8 or pixels.shape[1:2] != (3,):
            raise ValueError("it holds no images of red, green and blue in bytes")
        if pixels.ndim != 4 or pixels.shape[2] != pixels.shape[3] or not pixels.numel():
            raise ValueError(f"its images have shape {tuple(pixels.shape)}, and a run's are squares")
        numbers = torch.tensor((*examples.mean, *examples.std))
        if len(numbers) != 6 or not numbers.isfinite().all() or min(examples.std) <= 0:
            raise ValueError("its mean and std are not a number for each channel")
        return
    if set(features) != set(_TOKENS) or any(t.ndim != 2 or not t.numel() for t in features.values()):
        raise ValueError("it holds no texts as ids and masks of tokens")
    ids, mask = (features[name] for name in _TOKENS)
    if ids.shape != mask.shape or not _are_below(mask, 2) or not mask[:, 0].all():
        raise ValueError("its masks are not those of its texts")
    if not _are_below(ids, vocabulary):
        raise ValueError(f"its ids are not numbers of the model's vocabulary of {vocabulary}")


def check_fault(fault: Fault, kind: str, held: tuple[int, ...], path: Path) -> None:
    """Check a fault.

    Args:
        fault: The fault.
        kind: ``image`` or ``text``.
        held: Numbers of clients and classes.
        path: Its file.

    Raises:
        RecordError: It names clients or classes that the run does not have.
    """
    clients, classes = held
    named = [*fault.flips, *fault.flips.values(), *([] if fault.target is None else [fault.target])]
    problem = None
    if not fault.clients or any(int(client) >= clients for client in fault.clients):
        problem = f"clients {', '.join(fault.clients) or '(none)'}, and the run's are 0 to {clients - 1}"
    elif any(label >= classes for label in named):
        problem = f"class {max(named)}, and the run's are 0 to {classes - 1}"
    elif (fault.name == "backdoor") != (fault.target is not None and fault.trigger is not None):
        problem = "a target and a trigger, or lacks them"
    elif fault.trigger is not None and (fault.trigger.size if kind == "image" else fault.trigger.token) is None:
        problem = f"a trigger that is none for {kind}s"
    elif (fault.scale is None) != fault.in_examples or (fault.share is None) == fault.in_examples:
        problem = "what another fault has"
    if problem is not None:
        raise RecordError(f"{path} is damaged: it has {problem}; use another copy of the run, or run again")


def check_changes(changes: Sequence[ClientChange], fault: Fault, held: Tensor, path: Path) -> None:
    """Check what a fault changed against what the clients hold.

    Args:
        changes: What it changed.
        fault: The fault.
        held: ``(num_clients, C)`` training examples of each true class.
        path: The fault's file.

    Raises:
        RecordError: It is not the fault's, or speaks of other examples.
    """
    if [change.client for change in changes] not in ([], list(fault.clients)):
        raise RecordError(
            f"{path} is damaged: it has changes of other clients than the faulty ones; use another copy of the run, or "
            "run again"
        )
    for change in changes:
        of_clients = held[int(change.client)].tolist()
        sums = {sum(change.label_counts), sum(change.faulty_label_counts), change.examples}
        if (
            list(change.label_counts) != of_clients
            or len(change.faulty_label_counts) != len(of_clients)
            or len(sums) > 1
        ):
            raise RecordError(
                f"{path} is damaged: it has other examples of client {change.client} than label_counts.json; use "
                "another copy of the run, or run again"
            )
        if not change.changed <= change.changeable <= change.examples:
            raise RecordError(
                f"{path} is damaged: it has {change.changed} of {change.changeable} examples changed on client "
                f"{change.client}, which holds {change.examples}; use another copy of the run, or run again"
            )


def check_result(result: RoundResult, held: tuple[int, ...], examples: int, path: Path) -> None:
    """Check a round's result against the run.

    Args:
        result: The result.
        held: Numbers of clients and classes.
        examples: How many the server has.
        path: Its file.

    Raises:
        RecordError: It names clients, classes or examples that the run does not have.
    """
    clients, classes = held
    problem = None
    named = (*result.client_weights, *result.dropped, *(row["client"] for row in result.mitigation))
    named += tuple(client for traced in result.traced for client in traced.expected_clients)
    unknown = [client for client in named if int(client) >= clients]
    by_class = str(result.row["class_accuracy"] or "").split()
    labels = [label for traced in result.traced for label in (traced.label, traced.predicted)]
    labels += [int(each.partition(":")[0]) for each in by_class]
    inputs = [traced.input_index for traced in result.traced]
    if unknown or not result.client_weights:
        problem = f"client {unknown[0]}, and the run's are 0 to {clients - 1}" if unknown else "no client"
    elif max(labels, default=0) >= classes:
        problem = f"class {max(labels)}, and the run's are 0 to {classes - 1}"
    elif max(inputs, default=0) >= examples:
        problem = f"input {max(inputs)}, and the server's are 0 to {examples - 1}"
    if problem is not None:
        raise RecordError(f"{path} is damaged: it names {problem}; use another round")


def _are_below(numbers: Tensor, bound: int | None) -> bool:
    if numbers.dtype not in _WHOLE or int(numbers.min()) < 0:
        return False
    return bound is None or int(numbers.max()) < bound
