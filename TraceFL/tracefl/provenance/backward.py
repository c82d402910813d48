"""The backward pass of a batch, and every traced layer's products with the clients' weights by its rule."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import TypeAlias

import torch
from torch import Tensor, nn

from tracefl.provenance.capture import LayerCalls
from tracefl.provenance.contraction import Piece, contract
from tracefl.provenance.layers import GradientRule, OuterProducts, ParameterGradient, RowGradients, gradient_rule
from tracefl.provenance.sources import Clients
from tracefl.provenance.traced import join

_Pieces: TypeAlias = Callable[[], Iterator[Piece]]


def some_targets(values: Tensor, calls: Mapping[str, LayerCalls], limit_bytes: int) -> Iterator[tuple[Tensor, bool]]:
    """Yield the targets' values, as many at a time as have gradients that fit in memory, and whether more follow."""
    one = 2 * sum(output.numel() * output.itemsize for call in calls.values() for output in call.outputs)
    size, count = max(1, limit_bytes // max(one, 1)), values.shape[1]
    for start in range(0, count, size):
        yield values[:, start : start + size], start + size < count


def gradients(values: Tensor, calls: Mapping[str, LayerCalls], keep: bool) -> dict[Tensor, Tensor]:
    """Return the gradients of C targets, ``(B, C, ...)``, with respect to each layer's outputs that reach them.

    Args:
        values: ``(B, C)`` the targets.
        calls: The layers' outputs.
        keep: Whether more gradients of this forward pass will be requested.
    """
    outputs = [output for call in calls.values() for output in call.outputs]
    if not values.requires_grad:  # no layer that has a rule reaches the logits
        return {}
    columns = values.sum(dim=0).unbind()  # the inputs do not depend on one another
    by_target = [
        torch.autograd.grad(column, outputs, allow_unused=True, retain_graph=keep or number < len(columns) - 1)
        for number, column in enumerate(columns)
    ]
    found = {}
    for output, *gradients in zip(outputs, *by_target, strict=True):
        if any(g is not None for g in gradients):  # otherwise it does not reach the target, and contributes nothing
            there = [torch.zeros_like(output) if g is None else g for g in gradients]
            found[output] = torch.stack(there, dim=1) if len(there) > 1 else there[0].unsqueeze(1)
    return found


def pieces(
    gradients: Mapping[Tensor, Tensor],
    calls: Mapping[str, LayerCalls],
    layers: Mapping[str, nn.Module],
    factors: Mapping[str, float],
    single: bool,
) -> dict[str, list[_Pieces]]:
    """Return, for each call of a layer whose output reaches the target, a function that gives its gradients."""
    pieces: dict[str, list[_Pieces]] = {}
    for name, call in calls.items():
        rule = gradient_rule(layers[name])
        assert rule is not None
        pieces[name] = [
            partial(_pieces_of, name, layers[name], rule, layer_input, gradients[output], factors[name], single)
            for layer_input, output in zip(call.inputs, call.outputs, strict=True)
            if output in gradients and output.numel()  # an expert may see no input
        ]
    return pieces


def _pieces_of(
    name: str,
    layer: nn.Module,
    rule: GradientRule,
    layer_input: Tensor,
    gradient: Tensor,
    factor: float,
    single: bool,
) -> Iterator[Piece]:
    dtype = torch.promote_types(gradient.dtype, torch.float32)
    z = layer_input.to(dtype) if layer_input.is_floating_point() else layer_input
    for parameter, found in rule(layer, z, gradient.to(dtype)).items():
        yield Piece(join(name, parameter), _of_one_input(found) if single else found, factor)


def _of_one_input(found: ParameterGradient) -> ParameterGradient:
    """Fold the leading dimension into the positions: whatever it is, all of it belongs to the one input."""
    if isinstance(found, OuterProducts):
        g, z = found.gradient, found.layer_input
        if len(g) == 1:
            return found
        g = g.permute(1, 2, 0, 3, 4).flatten(2, 3).unsqueeze(0)  # (N, C, G, S, m) to (1, C, G, N * S, m)
        z = z.transpose(0, 1).flatten(1, 2).unsqueeze(0)
        return OuterProducts(g, z, found.rows_from_input, found.taps)
    if isinstance(found, RowGradients):
        return found.of_one_input()
    return found.sum(dim=0, keepdim=True)


def products(
    pieces: Mapping[str, Sequence[_Pieces]],
    clients: Clients,
    rounded: torch.dtype | None,
    names: Sequence[str] | None,
    leading: tuple[int, int],
) -> Tensor:
    """Return the ``(B, C, K, L)`` float64 products of the named layers, 0 where unreached; for None their sum, L = 1.

    Args:
        pieces: As ``pieces`` returns them.
        clients: The K clients.
        rounded: Dtype to which the factors of large products are rounded; None for no rounding.
        names: The L layers.
        leading: B and C.
    """
    nothing = torch.zeros(*leading, len(clients), dtype=torch.float64, device=clients.device)
    if names is None:
        calls = list(chain.from_iterable(pieces.values()))
        return (contract(calls, clients, rounded) if calls else nothing).unsqueeze(-1)
    found = {name: contract(calls, clients, rounded) for name, calls in pieces.items() if calls}
    return torch.stack([found.get(name, nothing) for name in names], dim=-1)
