"""Contributions of the parameters that no rule covers, by automatic differentiation of each input.

The gradient of an input's target with respect to a parameter is formed as it is, whatever the model does with the
parameter, and multiplied with every client's (contraction.py).
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor, nn

from tracefl.provenance.contraction import Piece, contract
from tracefl.provenance.input_gradients import Differentiation, gradients_of_inputs
from tracefl.provenance.inputs import Batch
from tracefl.provenance.layers import statistics_gradients
from tracefl.provenance.sources import Clients
from tracefl.provenance.targets import Target
from tracefl.provenance.traced import Traced, join

_Gradients: TypeAlias = dict[str, dict[str, Tensor]]  # by layer and parameter, (b, C, *shape)


def add_statistics(gradients: dict[str, Tensor], layer_name: str, layer: nn.Module) -> None:
    """Add the gradients of BatchNorm's running statistics to those of its weight and bias, from which they follow."""
    by_weight, by_bias = (gradients.get(join(layer_name, name)) for name in ("weight", "bias"))
    if by_weight is not None and by_bias is not None:
        found = statistics_gradients(layer, by_weight, by_bias)
        gradients |= {join(layer_name, name): gradient for name, gradient in found.items()}


def differentiated_products(
    model: nn.Module,
    batch: Batch,
    traced: Traced,
    clients: Clients,
    targets: Sequence[Target],
    classes: Sequence[Tensor | None],
    limit_bytes: int,
    at_once: int,
) -> list[dict[str, Tensor]]:
    """Return, for each target, each differentiated layer's ``(B, C, K)`` float64 products; a layer without is absent.

    Args:
        model: Frozen, on the clients' device.
        batch: The B inputs.
        traced: What is traced.
        clients: The K clients.
        targets: What is attributed.
        classes: For each target the inputs' classes, or None for a named one.
        limit_bytes: Bytes of gradients, and of the inputs that are run at once.
        at_once: How many inputs that may be at most.
    """
    layer_of = {name: layer for layer, parameters in traced.differentiated.items() for name in parameters}
    parameters = {name: traced.differentiated[layer][name] for name, layer in layer_of.items()}
    found: list[list[dict[str, Tensor]]] = [[] for _ in targets]  # by target, and by some inputs at a time
    waiting: list[list[_Gradients]] = [[] for _ in targets]  # by target, and by the inputs that were run at once
    counts: list[list[int]] = [[]]  # of those inputs
    size = done = 0
    asked = Differentiation(model, batch, parameters, targets, classes, clients.device)
    for some in gradients_of_inputs(asked, limit_bytes, at_once):
        counts[-1].append(some.count)
        done += some.count
        for waits, gradients in zip(waiting, some.of_targets, strict=True):
            waits.append(_by_layer(gradients, layer_of, traced))
            size += _bytes(waits[-1])
        if size > limit_bytes or done == batch.count:
            for products, waits in zip(found, waiting, strict=True):
                products.append(_products(waits, counts[-1], clients))
                waits.clear()
            counts.append([])
            size = 0
    return [_joined(products, [sum(together) for together in counts[:-1]]) for products in found]


def _by_layer(gradients: Mapping[str, Tensor], layer_of: Mapping[str, str], traced: Traced) -> _Gradients:
    found: _Gradients = {}
    for name, gradient in gradients.items():
        found.setdefault(layer_of[name], {})[name] = gradient
    for layer, module in traced.statistics.items():
        if layer in found:
            add_statistics(found[layer], layer, module)
    return found


def _bytes(gradients: _Gradients) -> int:
    return sum(g.numel() * g.itemsize for parts in gradients.values() for g in parts.values())


def _products(of_inputs: Sequence[_Gradients], counts: Sequence[int], clients: Clients) -> dict[str, Tensor]:
    """Return each layer's ``(b, C, K)`` products for some inputs, of the layers that one of them reaches."""
    found = {}
    for layer in dict.fromkeys(name for gradients in of_inputs for name in gradients):
        pieces = []
        for name in dict.fromkeys(name for gradients in of_inputs for name in gradients.get(layer, ())):
            some = next(g[layer][name] for g in of_inputs if name in g.get(layer, ()))
            there = [g.get(layer, {}).get(name) for g in of_inputs]
            stacked = torch.cat(
                [some.new_zeros(b, *some.shape[1:]) if g is None else g for b, g in zip(counts, there, strict=True)]
            )
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
