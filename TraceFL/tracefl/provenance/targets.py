"""The number that is attributed: one value for each input, a function of the global model's logits.

With c the predicted class and C classes: ``predicted`` is logit_c, ``margin`` is logit_c minus the runner-up's logit,
``centered`` is logit_c minus the mean of all logits, and a tensor of classes is each input's logit of its class. A
constant added to all logits changes no prediction, and no ``margin`` or ``centered`` value either. ``all`` is every
class's logit, C targets per input, to ask why one class and not another.
"""

from typing import Literal, TypeAlias

import torch
from torch import Tensor

Target: TypeAlias = Literal["predicted", "margin", "centered", "all"] | Tensor
TARGETS = ("predicted", "margin", "centered", "all")


def target_values(logits: Tensor, target: Target) -> Tensor:
    """Return the ``(B, 1)`` values to attribute, ``(B, C)`` for ``"all"``, differentiable in ``logits``.

    Args:
        logits: ``(B, C)`` of the global model.
        target: One of ``TARGETS``, or a ``(B,)`` integer tensor of classes.

    Raises:
        ValueError: ``target`` is unknown, has another length than B, or names a class outside 0..C-1.
    """
    return values_of(logits, target, check_target(target, len(logits), logits.shape[1]))


def values_of(logits: Tensor, target: Target, classes: Tensor | None) -> Tensor:
    """Return what ``target_values`` does, unchecked; ``classes`` are the target's, or None for a named one."""
    if classes is not None:
        return logits.gather(1, classes.to(logits.device).unsqueeze(1))
    if target == "all":
        return logits
    predicted_logit, predicted = logits.max(dim=1, keepdim=True)  # (B, 1), (B, 1)
    if target == "margin":
        others = logits.scatter(1, predicted, -torch.inf)
        return predicted_logit - others.max(dim=1, keepdim=True).values
    if target == "centered":
        return predicted_logit - logits.mean(dim=1, keepdim=True)
    return predicted_logit


def check_target(target: Target, num_inputs: int, num_classes: int | None = None) -> Tensor | None:
    """Return the target's classes as int64, or None for a named target.

    Raises:
        ValueError: As ``target_values``.
    """
    if isinstance(target, str):
        if target not in TARGETS:
            raise ValueError(
                f"unknown target {target!r}; choose one of {', '.join(TARGETS)} or pass a tensor of classes"
            )
        if num_classes is not None and num_classes < 2:
            raise ValueError(f"target {target!r} needs at least 2 classes, the model returns {num_classes}")
        return None
    if target.shape != (num_inputs,) or target.is_floating_point() or target.is_complex():
        raise ValueError(
            f"a target tensor holds one integer class an input: expected shape ({num_inputs},), "
            f"got {tuple(target.shape)} of {target.dtype}"
        )
    classes = target.long()
    if num_classes is not None and ((classes < 0) | (classes >= num_classes)).any():
        raise ValueError(f"target classes must lie in 0..{num_classes - 1}, got {classes.tolist()}")
    return classes
