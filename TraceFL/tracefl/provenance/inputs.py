"""A batch of inputs, which is one tensor, or several under the names of the model's arguments."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor

Inputs: TypeAlias = Tensor | dict[str, Tensor]
"""What a model takes: ``(B, C, H, W)`` floats, or a mapping of ``(B, T)`` integer tensors."""


def forward(model: Callable[..., Any], inputs: Inputs) -> Tensor:
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


def slice_inputs(inputs: Inputs, start: int, stop: int, device: torch.device | None = None) -> Inputs:
    """Return inputs ``start`` to ``stop`` of a batch, on a device; None leaves them where they are."""
    return _map(inputs, lambda tensor: tensor[start:stop].to(device))


def take_inputs(inputs: Inputs, rows: Tensor) -> Inputs:
    """Return the inputs at the positions ``rows``, ``(R,)`` int64."""
    return _map(inputs, lambda tensor: tensor[rows.to(tensor.device)])


def batches(inputs: Inputs, size: int, device: torch.device) -> Iterator[Inputs]:
    """Yield the inputs, at most ``size`` at a time, on a device."""
    for start in range(0, count_inputs(inputs), size):
        yield slice_inputs(inputs, start, start + size, device)


def _map(inputs: Inputs, change: Callable[[Tensor], Tensor]) -> Inputs:
    if isinstance(inputs, Mapping):
        return {name: change(tensor) for name, tensor in inputs.items()}
    return change(inputs)
