"""What a model is given: a batch as one tensor, or as several by the names of its forward's arguments."""

from collections.abc import Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

Inputs: TypeAlias = Tensor | dict[str, Tensor]
"""What a model takes: ``(B, C, H, W)`` floats, or a mapping of ``(B, T)`` integer tensors."""


def forward(model: nn.Module, inputs: Inputs) -> Tensor:
    """Return the ``(B, C)`` logits of a model that returns them, or an object with ``.logits``.

    Raises:
        TypeError: The model returns something else.
    """
    output: Any = model(**inputs) if isinstance(inputs, Mapping) else model(inputs)
    logits = getattr(output, "logits", output)
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(output).__name__
        raise TypeError(f"the model must return logits of shape (B, C) or an object with .logits, got {shape}")
    return logits


def count_inputs(inputs: Inputs) -> int:
    """Return how many inputs a batch holds."""
    return len(next(iter(inputs.values()))) if isinstance(inputs, Mapping) else len(inputs)


def slice_inputs(inputs: Inputs, start: int, stop: int, device: torch.device | None) -> Inputs:
    """Return inputs ``start`` to ``stop`` of a batch, on a device; None leaves them where they are."""
    if isinstance(inputs, Mapping):
        return {name: tensor[start:stop].to(device) for name, tensor in inputs.items()}
    return inputs[start:stop].to(device)
