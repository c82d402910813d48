r"""Attribute the global model's predictions to the clients whose weights it averages.

With z_l the input of layer l in the global model and g_l the gradient of the target with respect to that layer's
output, client k's contribution to one input is (Gill et al. 2025, Eq. 2 to 6)

    T_k = sum_l decay^(L-1-l) * < layer_l with client k's weights, applied to z_l ; g_l >.

Every traced layer is linear in its parameters, so the inner product is that of the client's parameters with the
target's gradient with respect to the global layer's parameters:

    T_k = sum_l decay^(L-1-l) * < theta_k^l ; d target / d theta^l >.

That gradient is the same for all clients. So one forward and one backward pass of the global model serve all inputs and
clients at once, and the clients' weights are read once; no client's model is ever built or run, and no gradient of the
model's own parameters is computed. contraction.py computes each layer's product.

Letters: B inputs, C targets per input (1, or all classes), K clients, L traced layers that the forward calls. Layers
are counted in the order of ``named_modules()``; the last one's factor is 1.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor, nn

from tracefl.errors import LayerNotTraceableError, ModelMismatchError
from tracefl.provenance.attribution import Attribution
from tracefl.provenance.capture import ActivationsTooLargeError, LayerCalls, frozen_eval, run_forward, traced_layers
from tracefl.provenance.compute import Compute
from tracefl.provenance.contraction import Piece, contract
from tracefl.provenance.inputs import Inputs, count_inputs, slice_inputs
from tracefl.provenance.layers import (
    OPTIONS,
    GradientRule,
    OuterProducts,
    ParameterGradient,
    RowGradients,
    gradient_rule,
    traced_tensors,
)
from tracefl.provenance.sources import Clients, Weights
from tracefl.provenance.targets import Target, check_target, target_values

_Pieces: TypeAlias = Callable[[], Iterator[Piece]]
_FACTORS: dict[str, torch.dtype | None] = {"float32": None, "bf16": torch.bfloat16}


def attribute(
    global_model: nn.Module,
    clients: Mapping[str, Weights | str | Path],
    inputs: Inputs,
    *,
    target: Target = "predicted",
    layer_decay: float = 0.9,
    client_weights: Mapping[str, float] | None = None,
    reference: Weights | None = None,
    base: Weights | None = None,
    layers: Sequence[str] | None = None,
    also: Collection[str] = (),
    by_layer: bool = False,
    compute: Compute = Compute(),
) -> Attribution:
    """Attribute the global model's predictions to the clients it averages.

    Args:
        global_model: The averaged model. It runs in evaluation mode; its mode, hooks, gradients and device are
            restored.
        clients: Client id to its parameters by name, as in ``state_dict()``, extra names ignored; or to the safetensors
            file that holds them, which is read block by block, once for each batch of inputs.
        inputs: ``(B, ...)`` one batch in the model's input shape, or a mapping of such tensors for transformers.
        target: ``"predicted"`` logit, ``"margin"`` (minus the runner-up's), ``"centered"`` (minus the mean of all),
            ``"all"`` classes' logits, or a ``(B,)`` integer tensor: the logit of that class.
        layer_decay: Factor in (0, 1] for each layer further from the output.
        client_weights: Client id to the factor of its contribution, e.g. p_k = n_k / sum(n); None for none.
        reference: Parameters subtracted from every client's, or None. Without ``client_weights`` it changes no score.
        base: Where ``clients`` holds differences: the parameters they are added to.
        layers: Names of the layers to trace, as in ``named_modules()``; a name stands for all traceable layers below
            it. None traces every layer of a registered kind.
        also: Kinds of layer that are traced only on request: ``"batch_norm"`` (its parameters, and its running
            statistics to first order; meant for differences, so with the global model as ``reference``) and
            ``"embedding"``.
        by_layer: Whether to return the terms of the sum over layers too; the products are then taken layer by layer.
        compute: The device, and the bounds on memory.

    Returns:
        Contributions and scores of shape ``(B, K)``, columns in the order of ``clients``; ``(B, K, C)`` for ``"all"``.
        With ``by_layer`` also what each traced layer adds to them, ``(..., L)``.

    Raises:
        ModelMismatchError: A client lacks a traced parameter, or has it in another shape or with values that are not
            finite.
        LayerNotTraceableError: A name in ``layers`` cannot be traced.
        RecordError: A client's file cannot be read.
        ValueError: No clients, no inputs, or an argument out of range.
    """
    (found,) = attribute_targets(
        global_model,
        clients,
        inputs,
        (target,),
        layer_decay=layer_decay,
        client_weights=client_weights,
        reference=reference,
        base=base,
        layers=layers,
        also=also,
        by_layer=by_layer,
        compute=compute,
    )
    return found


def attribute_targets(
    global_model: nn.Module,
    clients: Mapping[str, Weights | str | Path],
    inputs: Inputs,
    targets: Sequence[Target],
    *,
    layer_decay: float,
    client_weights: Mapping[str, float] | None,
    reference: Weights | None,
    base: Weights | None = None,
    layers: Sequence[str] | None,
    also: Collection[str],
    by_layer: bool,
    compute: Compute,
) -> list[Attribution]:
    """Attribute several targets in one forward pass: bit for bit what ``attribute`` returns for each.

    Arguments and errors are those of ``attribute``.
    """
    num_inputs = count_inputs(inputs)
    classes = [check_target(target, num_inputs) for target in targets]
    _check_arguments(clients, num_inputs, layer_decay, client_weights, also)
    chosen = traced_layers(global_model, layers, also)
    contributions: list[list[Tensor]] = [[] for _ in targets]
    predicted = []
    half = compute.memory_budget // 2
    with frozen_eval(global_model, compute.device) as place:
        staged = _clients(global_model, clients, chosen, reference, base, place)
        size, start, checked = min(compute.backward_batch_size, num_inputs), 0, num_inputs == 1
        while start < num_inputs:
            batch = slice_inputs(inputs, start, start + size, place)
            try:
                logits, calls = run_forward(global_model, batch, chosen, half if size > 1 else None)
            except ActivationsTooLargeError:
                size = (size + 1) // 2
                continue
            if size > 1 and not checked:
                checked = True
                if not _batch_first(global_model, calls, batch, chosen, len(logits)):
                    size = 1  # some layer folds the batch into other dimensions: take one input at a time
                    continue
            for number, (target, of_inputs) in enumerate(zip(targets, classes, strict=True)):
                values = target_values(logits, target if of_inputs is None else of_inputs[start : start + size])
                found = []
                for some, more in _some_targets(values, calls, half):
                    gradients = _gradients(some, calls, keep=more or number < len(targets) - 1)
                    pieces = _pieces(gradients, calls, chosen, also, layer_decay, len(values) == 1)
                    found.append(
                        _products(pieces, staged, _FACTORS[compute.precision], tuple(chosen) if by_layer else None)
                    )
                contributions[number].append(torch.cat(found, dim=1).cpu())  # (B, C, K, L), L = 1 for their sum
            predicted.append(logits.detach().argmax(dim=1).cpu())
            start += size
    dtype = torch.promote_types(logits.dtype, torch.float32)
    names = tuple(chosen) if by_layer else ()
    results = []
    for target, batches in zip(targets, contributions, strict=True):
        parts = torch.cat(batches).transpose(1, 2)  # (B, K, C, L)
        parts = parts if isinstance(target, str) and target == "all" else parts.squeeze(2)
        results.append(_result(tuple(clients), parts, torch.cat(predicted), client_weights, dtype, names))
    return results


def _some_targets(values: Tensor, calls: Mapping[str, LayerCalls], limit_bytes: int) -> Iterator[tuple[Tensor, bool]]:
    """Yield the targets' values, as many at a time as have gradients that fit in memory, and whether more follow."""
    one = 2 * sum(output.numel() * output.itemsize for call in calls.values() for output in call.outputs)
    size, count = max(1, limit_bytes // max(one, 1)), values.shape[1]
    for start in range(0, count, size):
        yield values[:, start : start + size], start + size < count


def _gradients(values: Tensor, calls: Mapping[str, LayerCalls], keep: bool) -> dict[Tensor, Tensor]:
    """Return the gradients of C targets, ``(B, C, ...)``, with respect to each layer's outputs that reach them.

    Args:
        values: ``(B, C)`` the targets.
        calls: The layers' outputs.
        keep: Whether more gradients of this forward pass will be requested.
    """
    outputs = [output for call in calls.values() for output in call.outputs]
    if not values.requires_grad:
        raise LayerNotTraceableError(
            "the logits do not depend on any traced layer: the model detaches them, or every layer named in "
            "provenance.layers is unused"
        )
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


def _pieces(
    gradients: Mapping[Tensor, Tensor],
    calls: Mapping[str, LayerCalls],
    layers: Mapping[str, nn.Module],
    also: Collection[str],
    layer_decay: float,
    single: bool,
) -> dict[str, list[_Pieces]]:
    """Return, for each call of a layer whose output reaches the target, a function that gives its gradients."""
    pieces: dict[str, list[_Pieces]] = {}
    for position, (name, call) in enumerate(calls.items()):
        factor = layer_decay ** (len(calls) - 1 - position)
        rule = gradient_rule(layers[name], also)
        assert rule is not None
        pieces[name] = [
            partial(_pieces_of, name, layers[name], rule, layer_input, gradients[output], factor, single)
            for layer_input, output in zip(call.inputs, call.outputs, strict=True)
            if output in gradients
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
        yield Piece(_join(name, parameter), _of_one_input(found) if single else found, factor)


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


def _products(
    pieces: Mapping[str, Sequence[_Pieces]], clients: Clients, factors: torch.dtype | None, layers: Sequence[str] | None
) -> Tensor:
    """Return the ``(B, C, K, L)`` float64 products of ``layers``, 0 where unreached; for None their sum, L=1."""
    if layers is None or not any(pieces.values()):
        return contract(chain.from_iterable(pieces.values()), clients, factors).unsqueeze(-1)
    found = {name: contract(calls, clients, factors) for name, calls in pieces.items() if calls}
    nothing = torch.zeros_like(next(iter(found.values())))
    return torch.stack([found.get(name, nothing) for name in layers], dim=-1)


def _clients(
    model: nn.Module,
    clients: Mapping[str, Weights | str | Path],
    layers: Mapping[str, nn.Module],
    reference: Weights | None,
    base: Weights | None,
    device: torch.device,
) -> Clients:
    """Check the clients against the model's traced tensors, before anything is computed."""
    center: dict[str, Tensor] = {}
    names: dict[Tensor, list[str]] = {}
    for name, layer in layers.items():
        for tensor in traced_tensors(layer):
            value = getattr(layer, tensor)
            center[_join(name, tensor)] = value.detach().to(torch.promote_types(value.dtype, torch.float32))
    if not center:
        raise ModelMismatchError(f"{type(model).__name__} has no layer that can be traced")
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(parameter, []).append(name)
    aliases = {name: others for others in names.values() if len(others) > 1 for name in others}
    found = Clients(clients, center, reference, base, aliases, device)
    found.check({name: tuple(tensor.shape) for name, tensor in center.items()})
    return found


def _result(
    client_ids: tuple[str, ...],
    parts: Tensor,
    predicted: Tensor,
    client_weights: Mapping[str, float] | None,
    dtype: torch.dtype,
    layers: tuple[str, ...],
) -> Attribution:
    """Weigh, check and normalise the contributions, ``(B, K, L)`` or ``(B, K, C, L)``."""
    by_client = parts.transpose(0, 1)
    if client_weights is not None:
        factors = torch.tensor([client_weights[k] for k in client_ids], dtype=torch.float64)
        by_client = by_client * factors.view(-1, *(1 for _ in by_client.shape[1:]))
    finite = by_client.flatten(1).isfinite().all(dim=1)
    if not finite.all():
        bad = [k for k, ok in zip(client_ids, finite.tolist(), strict=True) if not ok]
        raise ModelMismatchError(f"contributions of clients {', '.join(bad)} are not finite: leave those clients out")
    parts = by_client.transpose(0, 1)
    total = parts.sum(dim=-1)
    by_layer = parts.to(dtype) if layers else None
    return Attribution(client_ids, total.to(dtype), total.softmax(dim=1).to(dtype), predicted, layers, by_layer)


def _check_arguments(
    clients: Mapping[str, Weights | str | Path],
    num_inputs: int,
    layer_decay: float,
    client_weights: Mapping[str, float] | None,
    also: Collection[str],
) -> None:
    if not clients:
        raise ValueError("no clients: attribute() needs the weights of at least one")
    if not num_inputs:
        raise ValueError("no inputs: attribute() needs at least one")
    if not 0 < layer_decay <= 1:
        raise ValueError(f"layer_decay must lie in (0, 1], got {layer_decay}")
    if isinstance(also, str) or not set(also) <= set(OPTIONS):
        raise ValueError(f"also may name {', '.join(OPTIONS)}, got {also!r}")
    missing = [] if client_weights is None else [k for k in clients if k not in client_weights]
    if missing:
        raise ValueError(f"client_weights has no weight for clients {', '.join(missing)}")


def _batch_first(
    model: nn.Module,
    calls: Mapping[str, LayerCalls],
    batch: Inputs,
    layers: Mapping[str, nn.Module],
    size: int,
) -> bool:
    """Tell whether every layer's first dimension is the batch's."""
    seen = [t for call in calls.values() for t in (*call.inputs, *call.outputs)]
    if any(t.ndim < 2 or len(t) != size for t in seen):
        return False
    if not any(size in t.shape[1:] for t in seen):
        return True
    # Another dimension has the same size and may be the batch's: a single input tells them apart.
    _, alone = run_forward(model, slice_inputs(batch, 0, 1), layers)
    return all(len(t) == 1 for call in alone.values() for t in (*call.inputs, *call.outputs))


def _join(layer_name: str, parameter: str) -> str:
    return f"{layer_name}.{parameter}" if layer_name else parameter
