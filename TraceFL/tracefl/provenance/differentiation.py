"""Contributions of the parameters that no rule covers, by automatic differentiation of one input at a time.

The gradient of an input's target with respect to a parameter is formed as it is, whatever the model does with the
parameter, and multiplied with every client's (contraction.py).
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor, nn

from tracefl.provenance.contraction import Piece, contract
from tracefl.provenance.inputs import Batch, forward
from tracefl.provenance.sources import Clients
from tracefl.provenance.targets import Target, target_values
from tracefl.provenance.traced import Traced, join

_Gradients: TypeAlias = dict[str, dict[str, Tensor]]  # by layer and parameter


@contextmanager
def requiring_grad(tensors: Sequence[Tensor]) -> Iterator[None]:
    """Let some frozen parameters require gradients; recurrent layers, whose fast kernels know none, use slower ones."""
    try:
        for tensor in tensors:
            tensor.requires_grad_(True)
        with torch.enable_grad(), torch.backends.cudnn.flags(enabled=torch.backends.cudnn.enabled and not tensors):
            yield
    finally:
        for tensor in tensors:
            tensor.requires_grad_(False)


def gradients_of(value: Tensor, tensors: Sequence[Tensor], keep: bool) -> list[Tensor | None]:
    """Return the gradients of one number, None where it does not depend on the tensor."""
    if not value.requires_grad:
        return [None] * len(tensors)
    return list(torch.autograd.grad(value, tensors, retain_graph=keep, allow_unused=True))


def add_statistics(gradients: dict[str, Tensor], layer_name: str, layer: nn.Module) -> None:
    """Add the gradients of BatchNorm's running statistics to those of its weight and bias, of which they follow.

    In evaluation y = (x - m) * w / sqrt(v + eps) + b, whatever comes after, so dy/dm = -w / sqrt(v + eps) * dy/db and
    dy/dv = -w / (2 (v + eps)) * dy/dw.
    """
    assert isinstance(layer, nn.modules.batchnorm._BatchNorm)
    by_weight, by_bias = (gradients.get(join(layer_name, name)) for name in ("weight", "bias"))
    if by_weight is None or by_bias is None:
        return
    assert layer.running_var is not None
    inverse = (layer.running_var + layer.eps).rsqrt()
    gradients[join(layer_name, "running_mean")] = -by_bias * layer.weight * inverse
    gradients[join(layer_name, "running_var")] = -0.5 * by_weight * layer.weight * inverse.square()


def differentiated_products(
    model: nn.Module,
    batch: Batch,
    traced: Traced,
    clients: Clients,
    targets: Sequence[Target],
    classes: Sequence[Tensor | None],
    limit_bytes: int,
) -> list[dict[str, Tensor]]:
    """Return, for each target, each differentiated layer's ``(B, C, K)`` float64 products; a layer without is absent.

    Args:
        model: Frozen, on the clients' device.
        batch: The B inputs.
        traced: What is traced.
        clients: The K clients.
        targets: What is attributed.
        classes: For each target the inputs' classes, or None for a named one.
        limit_bytes: Bytes of gradients to hold at once.
    """
    names = [(layer, name) for layer, parameters in traced.differentiated.items() for name in parameters]
    tensors = [traced.differentiated[layer][name] for layer, name in names]
    found: list[list[dict[str, Tensor]]] = [[] for _ in targets]  # by target, and by some inputs at a time
    counts: list[int] = []
    waiting: list[list[_Gradients]] = [[] for _ in targets]  # by target and input
    size = 0
    with requiring_grad(tensors):
        for i, logits, more in _each_input(model, batch, clients.device):
            for number, (target, own) in enumerate(zip(targets, classes, strict=True)):
                values = target_values(logits, target if own is None else own[i : i + 1])[0]  # (C,)
                keep = more or number < len(targets) - 1
                by_target = [
                    gradients_of(value, tensors, keep or c < len(values) - 1) for c, value in enumerate(values.unbind())
                ]
                waiting[number].append(_by_layer(names, by_target, traced))
            size += sum(_bytes(of_inputs[-1]) for of_inputs in waiting)
            if size > limit_bytes or i == batch.count - 1:
                counts.append(len(waiting[0]))
                for products, of_inputs in zip(found, waiting, strict=True):
                    products.append(_products(of_inputs, clients))
                    of_inputs.clear()
                size = 0
    return [_joined(products, counts) for products in found]


def _each_input(model: nn.Module, batch: Batch, device: torch.device) -> Iterator[tuple[int, Tensor, bool]]:
    """Yield each input's number, its ``(1, C)`` logits, and whether their graph is needed again."""
    if batch.whole:
        logits = forward(model, batch.part(0, batch.count, device))
        for i in range(batch.count):
            yield i, logits[i : i + 1], i < batch.count - 1
        return
    for i in range(batch.count):
        yield i, forward(model, batch.part(i, i + 1, device)), False


def _by_layer(
    names: Sequence[tuple[str, str]], by_target: Sequence[Sequence[Tensor | None]], traced: Traced
) -> _Gradients:
    """Return one input's gradients, ``(C, *shape)``, by layer and parameter, of those that it reaches."""
    found: _Gradients = {}
    for (layer, name), *of_classes in zip(names, *by_target, strict=True):
        some = next((g for g in of_classes if g is not None), None)
        if some is not None:
            there = [torch.zeros_like(some) if g is None else g for g in of_classes]
            found.setdefault(layer, {})[name] = torch.stack(there).to(torch.promote_types(some.dtype, torch.float32))
    for layer, module in traced.statistics.items():
        if layer in found:
            add_statistics(found[layer], layer, module)
    return found


def _bytes(gradients: _Gradients) -> int:
    return sum(g.numel() * g.itemsize for parts in gradients.values() for g in parts.values())


def _products(of_inputs: Sequence[_Gradients], clients: Clients) -> dict[str, Tensor]:
    """Return each layer's ``(b, C, K)`` products for some inputs, of the layers that one of them reaches."""
    found = {}
    for layer in dict.fromkeys(name for gradients in of_inputs for name in gradients):
        pieces = []
        for name in dict.fromkeys(name for gradients in of_inputs for name in gradients.get(layer, ())):
            some = next(g[layer][name] for g in of_inputs if name in g.get(layer, ()))
            stacked = torch.stack([g.get(layer, {}).get(name, torch.zeros_like(some)) for g in of_inputs])
            pieces.append(Piece(name, stacked.unsqueeze(2) if stacked.ndim == 2 else stacked, 1.0))
        found[layer] = contract([partial(iter, pieces)], clients)
    return found


def _joined(products: Sequence[Mapping[str, Tensor]], counts: Sequence[int]) -> dict[str, Tensor]:
    joined = {}
    for layer in dict.fromkeys(name for some in products for name in some):
        like = next(some[layer] for some in products if layer in some)
        nothing = [like.new_zeros(count, *like.shape[1:]) for count in counts]
        joined[layer] = torch.cat([some.get(layer, zero) for some, zero in zip(products, nothing, strict=True)])
    return joined
