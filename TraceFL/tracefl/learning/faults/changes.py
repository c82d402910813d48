"""Faults in a client's examples: which examples a fault can change, and how it changes them."""

from dataclasses import replace

import torch
from torch import Tensor

from tracefl.learning.examples import Examples
from tracefl.learning.faults.truth import Fault


def changeable(fault: Fault, labels: Tensor) -> Tensor:
    """Return the positions of the examples that a fault can change, ascending.

    Args:
        fault: The fault; its clients are ignored.
        labels: ``(N,)`` int64 true classes of a client's examples.

    Returns:
        ``(M,)`` int64. For label_flip, the examples whose label is flipped; for a backdoor, those of classes other than
        the target; for other faults, all, since a fault in the weights affects everything that the client sends.
    """
    if fault.name == "label_flip":
        flipped = torch.isin(labels, torch.tensor(sorted(fault.flips), dtype=labels.dtype))
    elif fault.target is not None:
        flipped = labels != fault.target
    else:
        flipped = torch.ones_like(labels, dtype=torch.bool)
    return flipped.nonzero().flatten()


def change_examples(fault: Fault, examples: Examples, num_classes: int, seed: int) -> tuple[Examples, Tensor]:
    """Apply a fault to a client's examples.

    With the same seed, a larger share changes a superset of the examples.

    Args:
        fault: A fault in the examples.
        examples: N examples; left unchanged.
        num_classes: Classes of the data set, at least 2.
        seed: Determines which examples are changed, and labels drawn at random.

    Returns:
        The changed examples in the same order, and the ``(M,)`` positions of those that differ, ascending.
    """
    assert fault.share is not None
    draw = torch.Generator().manual_seed(seed)
    index = changeable(fault, examples.labels)
    count = min(len(index), max(1, round(fault.share * len(index))))
    index = index[torch.randperm(len(index), generator=draw)[:count].sort().values]
    old, labels = examples.labels[index], examples.labels.clone()
    if fault.name == "label_flip":
        labels[index] = torch.tensor([fault.flips[int(label)] for label in old], dtype=labels.dtype)
    elif fault.name == "random_labels":
        steps = torch.randint(1, num_classes, (len(index),), generator=draw)  # never 0, so always another class
        labels[index] = (old + steps) % num_classes
    else:
        assert fault.trigger is not None
        assert fault.target is not None
        labels[index] = fault.target
        examples = fault.trigger.put_on(examples, index)
    return replace(examples, labels=labels), index
