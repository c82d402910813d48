"""An attribution checks itself: one input of each batch, alone, against automatic differentiation.

The engine takes a batch's rows for its inputs, and each layer for what its kind is. Where that does not hold, the row
of an input is not what that input, run alone, has as the derivative of its target in the direction of a client drawn at
random. What is wrong is then looked for, layer by layer, and done another way.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from tracefl.provenance.differentiation import add_statistics
from tracefl.provenance.input_gradients import gradients_of, requiring_grad
from tracefl.provenance.inputs import Batch, forward
from tracefl.provenance.sources import Clients
from tracefl.provenance.targets import Target, target_values
from tracefl.provenance.traced import STATISTICS, Traced

#: Of the product of the norms of a gradient and a client's difference, how much rounding may change their product.
_ROUNDING = {torch.float64: 1e-9, torch.float32: 3e-5}
_COARSE = 2e-2  # of bf16 and float16
_BLOCK = 2**16  # entries
_LOGITS = {torch.float64: 1e-9, torch.float32: 1e-4}
_ROWS = {torch.float64: 1e-8, torch.float32: 1e-3}


@dataclass(frozen=True)
class Alone:
    """An input run alone, and differentiated.

    Attributes:
        logits: ``(1, C)``.
        gradients: By layer and tensor, the gradient of one of its targets; a layer that it does not reach is absent.
        untraced: By name, the gradients of the parameters that are not traced.
    """

    logits: Tensor
    gradients: Mapping[str, Mapping[str, Tensor]]
    untraced: Mapping[str, Tensor]


def differentiate_alone(
    model: nn.Module,
    batch: Batch,
    i: int,
    target: Target,
    column: int,
    traced: Traced,
    device: torch.device,
    untraced: bool,
) -> Alone:
    """Run input ``i`` alone, or with the others where they cannot be taken apart, and differentiate a target of it.

    Args:
        model: Frozen, on ``device``.
        batch: The inputs.
        i: Which of them.
        target: What is attributed; where it is classes, those of this input, ``(1,)``.
        column: Which of the input's targets.
        traced: What is traced.
        device: Where the model is.
        untraced: Whether by the parameters that are not traced, too.
    """
    with _with_affine_statistics(traced) as layers:
        known = {t for tensors in layers.values() for t in tensors.values()}
        by_name = {
            name: p for name, p in model.named_parameters() if p.is_floating_point() and (untraced or p in known)
        }
        with requiring_grad(list(by_name.values())):
            some = batch.part(0, batch.count, device) if batch.whole else batch.part(i, i + 1, device)
            logits = forward(model, some)
            logits = logits[i : i + 1] if batch.whole else logits
            value = target_values(logits, target)[0, column]
            found = gradients_of(value, list(by_name.values()), keep=False)
        by_parameter: dict[Tensor, Tensor] = {
            p: g for p, g in zip(by_name.values(), found, strict=True) if g is not None
        }
        gradients: dict[str, dict[str, Tensor]] = {}
        for layer, tensors in layers.items():
            reached = {name: by_parameter[t] for name, t in tensors.items() if t in by_parameter}
            module = traced.layers.get(layer, traced.statistics.get(layer))
            if reached and isinstance(module, nn.modules.batchnorm._BatchNorm):
                add_statistics(reached, layer, module)
            if reached:
                gradients[layer] = reached
        others = {name: by_parameter[p] for name, p in by_name.items() if p in by_parameter and p not in known}
    return Alone(logits.detach(), gradients, others)


@contextmanager
def _with_affine_statistics(traced: Traced) -> Iterator[dict[str, dict[str, Tensor]]]:
    """Give a BatchNorm that has none a weight of 1 and a bias of 0: of these its statistics' gradients follow.

    Yields:
        Each layer's traced parameters, by their names in the model.
    """
    plain = {
        name: layer
        for name, layer in traced.layers.items()
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.weight is None
    }
    try:
        for layer in plain.values():
            assert isinstance(layer.running_mean, Tensor)
            layer.weight = nn.Parameter(torch.ones_like(layer.running_mean), requires_grad=False)
            layer.bias = nn.Parameter(torch.zeros_like(layer.running_mean), requires_grad=False)
        found = {}
        for name, tensors in traced.tensors().items():
            found[name] = {full: t for full, t in tensors.items() if full.rpartition(".")[2] not in STATISTICS}
        yield found
    finally:
        for layer in plain.values():
            layer.weight = layer.bias = None  # type: ignore[assignment]


def difference_alone(
    alone: Alone, factors: Mapping[str, float], traced: Traced, clients: Clients, k: int
) -> tuple[float, float]:
    """Return the derivative in the direction of client number ``k``, and how far rounding may move it.

    Args:
        alone: The input.
        factors: Each layer's factor; a layer without one counts 1.
        traced: What is traced.
        clients: The clients.
        k: Which of them.
    """
    total, scale = 0.0, 0.0
    seen: set[Tensor] = set()
    tensors = traced.tensors()
    for layer, gradients in alone.gradients.items():
        for name, gradient in gradients.items():
            tensor = tensors[layer].get(name)
            if tensor is None or tensor in seen:  # a weight of 1 that is no parameter, or a tied one's second name
                continue
            seen.add(tensor)
            factor = factors.get(layer, 1.0)
            product, size, length = _block_by_block(gradient, clients, k, name)
            total += factor * product
            scale += factor * size * length
    return total, scale


def _block_by_block(gradient: Tensor, clients: Clients, k: int, name: str) -> tuple[float, float, float]:
    """Return a gradient's product with a client's difference, and the norms of both, a cacheful at a time."""
    gradient = gradient.unsqueeze(0) if gradient.ndim == 0 else gradient
    step = max(1, _BLOCK * len(gradient) // max(gradient.numel(), 1))
    product = size = length = 0.0
    for start in range(0, len(gradient), step):
        rows = slice(start, min(start + step, len(gradient)))
        change = clients.difference(k, name, rows)
        g = gradient[rows].flatten().to(change)
        product += float(torch.dot(g, change))
        size += float(torch.dot(g, g))
        length += float(torch.dot(change, change))
    return product, size**0.5, length**0.5


def is_close(found: float, expected: float, scale: float, dtype: torch.dtype, coarse: bool) -> bool:
    """Return whether two contributions differ by no more than rounding; those that are not finite are left alone."""
    if not (math.isfinite(found) and math.isfinite(expected)):
        return True
    rounding = _COARSE if coarse else _ROUNDING.get(dtype, _COARSE)
    return abs(found - expected) <= 10 * rounding * abs(expected) + rounding * scale


def same_logits(first: Tensor, second: Tensor, dtype: torch.dtype) -> bool:
    """Return whether inputs have the same ``(R, C)`` logits alone and in their batch, up to ``dtype``'s rounding."""
    if first.shape != second.shape:
        return False
    rounding = _LOGITS.get(dtype, _COARSE)
    return bool(((first - second).abs() <= rounding * (1 + second.abs().max())).all() | ~second.isfinite().all())


def without_neighbours(batch: Batch, alone: Tensor | None, together: Tensor, dtype: torch.dtype) -> Batch:
    """Return how inputs are to be taken whose logits may depend on the others in their batch.

    Args:
        batch: The inputs.
        alone: The ``(1, C)`` logits of one of them, run alone; None where it cannot be.
        together: Those it has in the batch.
        dtype: Of the model.

    Returns:
        The batch as it is where they are the same. Else one at a time where the inputs are a tensor. The arguments in a
        mapping may be shared by all inputs, whatever their lengths: then all are asked at once.
    """
    if alone is not None and same_logits(alone, together, dtype):
        return batch
    apart = alone is not None and alone.shape == together.shape and isinstance(batch.inputs, Tensor)
    return replace(batch, alone=True) if apart else replace(batch, whole=True)


def same_rows(some: Tensor, every: Tensor, rows: Tensor) -> bool:
    """Return whether a layer's input for some inputs of a batch, ``(R, ...)``, is theirs in it, up to rounding."""
    expected = every[rows.to(every.device)]
    if some.shape != expected.shape:
        return False
    if not some.is_floating_point():
        return torch.equal(some, expected)
    rounding = _ROWS.get(some.dtype, _COARSE)
    size = expected.abs().amax(dim=tuple(range(1, expected.ndim)), keepdim=True)
    return bool(((some - expected).abs() <= rounding * size + rounding * rounding).all() | ~expected.isfinite().all())
