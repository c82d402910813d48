"""A batch of inputs, and the logits that a model gives for it: one reading of both for all of provenance."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

Inputs: TypeAlias = Tensor | Mapping[str, Any]
"""What a model takes: ``(B, C, H, W)`` floats, or its arguments by name, such as ``(B, T)`` integer tensors.

In a mapping, a tensor with B rows holds one row for each input; another, such as position ids or the prompts of a
zero-shot classifier, is shared by all of them.
"""


def plain_model(model: nn.Module) -> nn.Module:
    """Return the model within ``DataParallel``, ``DistributedDataParallel`` and ``torch.compile``."""
    while True:
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            model = model.module
        elif isinstance(getattr(model, "_orig_mod", None), nn.Module):
            model = model._orig_mod  # type: ignore[assignment]
        else:
            return model


def forward(model: Callable[..., Any], inputs: Inputs) -> Tensor:
    """Return a model's ``(B, C)`` logits.

    They are its output, the output's ``.logits`` or ``["logits"]``, or the first matrix of a tuple. A single logit z,
    ``(B, 1)`` or ``(B,)``, as ``BCEWithLogitsLoss`` takes it, stands for the two classes' logits 0 and z.

    Raises:
        TypeError: The model returns something else.
    """
    output: Any = model(**inputs) if isinstance(inputs, Mapping) else model(inputs)
    logits = _logits_in(output)
    if isinstance(logits, Tensor) and logits.ndim == 1:
        logits = logits.unsqueeze(1)
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(output).__name__
        raise TypeError(f"the model must return logits of shape (B, C) or an object with .logits, got {shape}")
    if not logits.is_floating_point():
        raise TypeError(f"the model must return logits, got numbers of {logits.dtype}, such as those of classes")
    return torch.cat([torch.zeros_like(logits), logits], dim=1) if logits.shape[1] == 1 else logits


def _logits_in(output: Any) -> Any:
    if isinstance(output, Tensor):
        return output
    if isinstance(output, Mapping):
        output = output.get("logits", next(iter(output.values())) if len(output) == 1 else output)
    else:
        output = getattr(output, "logits", output)
    if isinstance(output, Sequence):
        return next((part for part in output if isinstance(part, Tensor) and part.ndim == 2), output)
    return output


def count_inputs(inputs: Inputs) -> int:
    """Return how many inputs a batch holds whose tensors all have one row for each."""
    return len(next(iter(inputs.values()))) if isinstance(inputs, Mapping) else len(inputs)


@dataclass(frozen=True)
class Batch:
    """Inputs that can be taken in parts.

    Attributes:
        inputs: All of them.
        count: How many they are, B.
        shared: Arguments of the model that belong to no single input.
        alone: The inputs must be taken one at a time: in a batch the model answers for the batch.
        whole: The inputs cannot be taken apart: the model has to see all of them at once.
    """

    inputs: Inputs
    count: int
    shared: frozenset[str] = frozenset()
    alone: bool = False
    whole: bool = False

    def part(self, start: int, stop: int, device: torch.device) -> Inputs:
        """Return inputs ``start`` to ``stop`` on a device, for a model to do with as it likes: a copy."""
        return self._map(lambda tensor: tensor[start:stop], device)

    def take(self, rows: Tensor) -> "Batch":
        """Return the inputs at the positions ``rows``, ``(R,)`` int64; they must not belong together."""
        taken = self._map(lambda tensor: tensor[rows.to(tensor.device)], None)
        return replace(self, inputs=taken, count=len(rows))

    def of_rows(self, change: Callable[[Tensor], Tensor], inputs: Inputs) -> Inputs:
        """Return inputs with every tensor changed that has a row for each of them."""
        if not isinstance(inputs, Mapping):
            return change(inputs)
        rows = self.axes()
        assert isinstance(rows, Mapping)
        return {name: value if rows[name] is None else change(value) for name, value in inputs.items()}

    def axes(self) -> int | Mapping[str, int | None]:
        """Return the dimension over which the inputs lie, as ``torch.vmap`` takes it: 0, None for what they share."""
        if not isinstance(self.inputs, Mapping):
            return 0
        return {
            name: 0 if isinstance(value, Tensor) and name not in self.shared else None
            for name, value in self.inputs.items()
        }

    def means(self, start: int, stop: int) -> Tensor:
        """Return the mean entry of each of the inputs ``start`` to ``stop``, ``(b,)`` float64 on the CPU.

        In a mapping, of its first tensor that has a row for each input.
        """
        values = {"": self.inputs} if isinstance(self.inputs, Tensor) else self.inputs
        first = next(value for name, value in values.items() if isinstance(value, Tensor) and name not in self.shared)
        return first[start:stop].detach().reshape(stop - start, -1).mean(dim=1, dtype=torch.float64).cpu()

    def is_finite(self, i: int) -> bool:
        """Return whether an input's numbers are finite, as far as they are its own."""
        values = {"": self.inputs} if isinstance(self.inputs, Tensor) else self.inputs
        own = [value for name, value in values.items() if isinstance(value, Tensor) and name not in self.shared]
        return all(bool(value[i].isfinite().all()) for value in own)

    def parts(self, size: int, device: torch.device) -> Iterator[Inputs]:
        """Yield the inputs, ``size`` at a time where they allow it, as ``part`` gives them."""
        step = self.count if self.whole else 1 if self.alone else size
        for start in range(0, self.count, step):
            yield self.part(start, start + step, device)

    def _map(self, cut: Callable[[Tensor], Tensor], device: torch.device | None) -> Inputs:
        def moved(tensor: Tensor) -> Tensor:
            return tensor.to(tensor.device if device is None else device, copy=True)

        if not isinstance(self.inputs, Mapping):
            return moved(cut(self.inputs))
        found = {}
        for name, value in self.inputs.items():
            if not isinstance(value, Tensor):
                found[name] = value
            else:
                found[name] = moved(value if name in self.shared else cut(value))
        return found


def read_batch(model: Callable[..., Any], inputs: Inputs, device: torch.device) -> Batch:
    """Return inputs as a batch; where a mapping's tensors have different numbers of rows, the model says which is B.

    Args:
        model: On ``device``, in evaluation mode.
        inputs: As the model takes them.
        device: Where the model is.

    Raises:
        TypeError: The inputs are neither a tensor nor a mapping that holds one.
        ValueError: There are no inputs, or none of a mapping's tensors has as many rows as the model gives logits.
    """
    if isinstance(inputs, Tensor):
        if inputs.ndim == 0 or not len(inputs):
            raise ValueError("no inputs: at least one is needed, as the first dimension of a batch")
        return Batch(inputs, len(inputs))
    if not isinstance(inputs, Mapping):
        raise TypeError(f"inputs are a tensor or a mapping of the model's arguments, got {type(inputs).__name__}")
    rows = {name: len(value) for name, value in inputs.items() if isinstance(value, Tensor) and value.ndim}
    if inputs and not any(isinstance(value, Tensor) for value in inputs.values()):
        held = ", ".join(f"{name}: {type(value).__name__}" for name, value in inputs.items())
        raise TypeError(f'inputs hold no tensor ({held}): give tensors, of a tokenizer by return_tensors="pt"')
    if not rows or not max(rows.values()):
        raise ValueError("no inputs: at least one is needed, as the first dimension of the mapping's tensors")
    if len(set(rows.values())) == 1:
        return Batch(inputs, next(iter(rows.values())))
    everything = Batch(inputs, 0, frozenset(inputs), whole=True)
    with torch.no_grad():
        count = len(forward(model, everything.part(0, 0, device)))
    shared = frozenset(name for name in inputs if rows.get(name) != count)
    if len(shared) == len(inputs):
        lengths = ", ".join(f"{name}: {length}" for name, length in rows.items())
        raise ValueError(f"the model gives logits for {count} inputs, and no tensor has that many rows ({lengths})")
    return Batch(inputs, count, shared)
