r"""Attribute the global model's predictions to the clients whose weights it averages.

With z_l the input of layer l in the global model and g_l the gradient of the target with respect to that layer's
output, client k's contribution to one input is (Gill et al. 2025, Eq. 2 to 6)

    T_k = sum_l decay^(L-1-l) * < layer_l with client k's weights, applied to z_l ; g_l >.

Every traced layer is linear in its parameters, so the inner product is that of the client's parameters with the
target's gradient with respect to the global layer's parameters:

    T_k = sum_l decay^(L-1-l) * < theta_k^l ; d target / d theta^l >.

That gradient is one for all clients. So one forward and one backward of the global model answer for all inputs and
clients at once, with one reading of the clients' weights; no client's model is ever built or run. The two sides of the
identity are two exact ways to contract a layer, and the cheaper one is taken, layer by layer:

- by gradient: each input's gradient of the layer's parameters, then one product [inputs x P] . [P x clients]. About
  S + K multiplications an input and parameter, and the traffic of a gradient of the size B * P, which costs as much as
  some 30 more (12 bytes at 10 GB/s against 50 GFLOP/s on a CPU core pair);
- by application: each client's parameters applied to z_l, then contracted with g_l. S * K multiplications, no traffic:
  cheaper where a layer has few output positions, as the wide layers of a CNN.

Letters: B inputs, C classes, K clients, L traced layers that the forward calls, P parameters of one layer, S its output
positions (pixels, tokens). Layers are counted in the order of ``named_modules()``, the last one's factor is 1.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from tracefl.errors import LayerNotTraceableError, ModelMismatchError
from tracefl.examples import Inputs
from tracefl.provenance.attribution import Attribution
from tracefl.provenance.capture import LayerCalls, run_forward, traced_layers, undisturbed
from tracefl.provenance.layers import gradient_rule, output_features, own_parameters
from tracefl.provenance.targets import Target, check_target, target_values

DEFAULT_BATCH_SIZE = 32  # inputs; bounds the activations kept, and changes no result
_CHUNK_BYTES = 256 * 2**20  # of per-input gradients held at once
_GRADIENT_TRAFFIC = 30  # multiplications that writing and reading one more gradient entry is worth

Weights = Mapping[str, Tensor]


def attribute(
    global_model: nn.Module,
    clients: Mapping[str, Weights],
    inputs: Inputs,
    *,
    target: Target = "predicted",
    layer_decay: float = 0.9,
    client_weights: Mapping[str, float] | None = None,
    reference: Weights | None = None,
    layers: Sequence[str] | None = None,
    batch_size: int | None = None,
    device: torch.device | str | None = None,
) -> Attribution:
    """Attribute the global model's predictions to the clients it averages.

    Args:
        global_model: The averaged model. It runs in evaluation mode and is given back as it was: mode, hooks,
            gradients, device.
        clients: Client id to its parameters by name, as in ``state_dict()``; extra names are ignored.
        inputs: ``(B, ...)`` one batch in the model's input shape, or a mapping of such tensors for transformers.
        target: ``"predicted"`` logit, ``"margin"`` (minus the runner-up's), ``"centered"`` (minus the mean of all),
            or a ``(B,)`` integer tensor: the logit of that class.
        layer_decay: Factor in (0, 1] for each layer further from the output.
        client_weights: Client id to the factor of its contribution, e.g. p_k = n_k / sum(n); None for none.
        reference: Parameters subtracted from every client's, or None. The same tensor subtracted from all changes no
            score where ``client_weights`` is None, and makes float32 sums far more exact.
        layers: Names of the layers to trace, as in ``named_modules()``; a name stands for all traceable layers below
            it. None traces every layer of a registered kind.
        batch_size: Inputs in one forward. It changes no result beyond rounding. Default 32.
        device: Where to compute; None for where the model is.

    Returns:
        Contributions and scores of shape ``(B, K)``, columns in the order of ``clients``.

    Raises:
        ModelMismatchError: A client lacks a traced parameter, has it in another shape, or not finite.
        LayerNotTraceableError: A name in ``layers`` cannot be traced.
        ValueError: No clients, no inputs, or an argument out of range.
    """
    num_inputs = _count(inputs)
    classes = check_target(target, num_inputs)
    _check_arguments(clients, num_inputs, layer_decay, client_weights, batch_size)
    chosen = traced_layers(global_model, layers)
    _check_weights(global_model, clients, chosen, reference)
    with undisturbed(global_model, device) as place:
        size = batch_size or DEFAULT_BATCH_SIZE
        if min(size, num_inputs) > 1 and not _batch_first(
            run_forward(global_model, _slice(inputs, 0, 1, place), chosen)
        ):
            size = 1  # some layer folds the batch into other dimensions: only one input at a time can be told apart
        contributions, predicted = [], []
        for start in range(0, num_inputs, size):
            batch = _slice(inputs, start, start + size, place)
            batch_target = target if classes is None else classes[start : start + size]
            logits, calls = run_forward(global_model, batch, chosen)
            values = target_values(logits, batch_target)
            contributions.append(_contributions(values, calls, chosen, clients, reference, layer_decay))
            predicted.append(logits.detach().argmax(dim=1).cpu())
    return _result(tuple(clients), torch.cat(contributions), torch.cat(predicted), client_weights, global_model)


def _contributions(
    values: Tensor,
    calls: Mapping[str, LayerCalls],
    layers: Mapping[str, nn.Module],
    clients: Mapping[str, Weights],
    reference: Weights | None,
    layer_decay: float,
) -> Tensor:
    """Return the unweighted ``(B, K)`` contributions of one batch, float64 on the CPU."""
    outputs = [output for call in calls.values() for output in call.outputs]
    if not values.requires_grad:
        raise LayerNotTraceableError(
            "the logits do not depend on any traced layer: the model detaches them, or every layer named in "
            "provenance.layers is unused"
        )
    gradients = dict(zip(outputs, torch.autograd.grad(values.sum(), outputs, allow_unused=True), strict=True))
    total = torch.zeros(len(values), len(clients), dtype=torch.float64, device=values.device)
    for position, (name, call) in enumerate(calls.items()):
        # An output that does not reach the target (gradient None) contributes nothing.
        seen = [(z, gradients[out]) for z, out in zip(call.inputs, call.outputs, strict=True)]
        pairs = [(z, g) for z, g in seen if g is not None]
        if not pairs:
            continue
        dtype = torch.promote_types(pairs[0][1].dtype, torch.float32)
        contract = _by_application if _application_is_cheaper(layers[name], pairs, len(clients)) else _by_gradient
        parameters = _client_parameters(name, layers[name], clients, reference, values.device, dtype)
        factor = layer_decay ** (len(calls) - 1 - position)
        pairs = [(z.to(dtype), g.to(dtype)) for z, g in pairs]
        total += factor * contract(layers[name], pairs, parameters, len(values))
    return total.cpu()


def _application_is_cheaper(layer: nn.Module, pairs: Sequence[tuple[Tensor, Tensor]], num_clients: int) -> bool:
    """Compare the two contractions by the cost model of the module's docstring."""
    gradient = pairs[0][1]
    positions = gradient[0].numel() / output_features(layer)
    return positions * num_clients < positions + num_clients + _GRADIENT_TRAFFIC


def _by_application(
    layer: nn.Module,
    pairs: Sequence[tuple[Tensor, Tensor]],
    parameters: Iterable[dict[str, Tensor]],
    num_inputs: int,
) -> Tensor:
    """Return ``(B, K)`` float64: each client's layer applied to the layer's input, contracted with the gradient."""
    columns = []
    for own in parameters:
        terms = [functional_call(layer, own, (z,)) * g for z, g in pairs]
        columns.append(sum(term.reshape(num_inputs, -1).sum(dim=1).double() for term in terms))
    return torch.stack(columns, dim=1)


def _by_gradient(
    layer: nn.Module,
    pairs: Sequence[tuple[Tensor, Tensor]],
    parameters: Iterable[dict[str, Tensor]],
    num_inputs: int,
) -> Tensor:
    """Return ``(B, K)`` float64: each input's parameter gradient times all clients' parameters."""
    names = list(own_parameters(layer))
    weights = torch.stack([torch.cat([own[name].flatten() for name in names]) for own in parameters])  # (K, P)
    single = num_inputs == 1
    rows = max(1, _CHUNK_BYTES // (weights.itemsize * weights.shape[1]))
    parts = []
    for start in range(0, num_inputs, rows):
        part = slice(None) if single else slice(start, start + rows)
        gradient = _parameter_gradient(layer, [(z[part], g[part]) for z, g in pairs], names, single)  # (rows, P)
        parts.append((gradient @ weights.T).double())
    return torch.cat(parts)


def _parameter_gradient(
    layer: nn.Module, pairs: Sequence[tuple[Tensor, Tensor]], names: Sequence[str], single: bool
) -> Tensor:
    """Return each input's gradient of the named parameters, ``(B, P)``, summed over the layer's calls."""
    rule = gradient_rule(layer)
    assert rule is not None
    flat = []
    for layer_input, gradient in pairs:
        by_name = rule(layer, layer_input, gradient)
        flat.append(torch.cat([by_name[name].flatten(1) for name in names], dim=1))
        if single:  # whatever the leading dimension is, all of it belongs to the one input
            flat[-1] = flat[-1].sum(dim=0, keepdim=True)
    return torch.stack(flat).sum(dim=0) if len(flat) > 1 else flat[0]


def _client_parameters(
    layer_name: str,
    layer: nn.Module,
    clients: Mapping[str, Weights],
    reference: Weights | None,
    device: torch.device,
    dtype: torch.dtype,
) -> Iterator[dict[str, Tensor]]:
    """Yield each client's parameters of one layer by their own names, less the reference's."""
    full = {name: _join(layer_name, name) for name in own_parameters(layer)}
    subtracted = {} if reference is None else {n: reference[f].detach().to(device, dtype) for n, f in full.items()}
    for weights in clients.values():
        own = {name: weights[f].detach().to(device, dtype) for name, f in full.items()}
        yield {name: tensor - subtracted[name] for name, tensor in own.items()} if subtracted else own


def _result(
    client_ids: tuple[str, ...],
    contributions: Tensor,
    predicted: Tensor,
    client_weights: Mapping[str, float] | None,
    model: nn.Module,
) -> Attribution:
    """Weigh, check and normalise the contributions."""
    if client_weights is not None:
        contributions = contributions * torch.tensor([client_weights[k] for k in client_ids], dtype=torch.float64)
    finite = contributions.isfinite().all(dim=0)
    if not finite.all():
        bad = [k for k, ok in zip(client_ids, finite.tolist(), strict=True) if not ok]
        raise ModelMismatchError(f"contributions of clients {', '.join(bad)} are not finite: leave those clients out")
    scores = contributions.softmax(dim=1)
    double = any(p.dtype == torch.float64 for p in model.parameters())
    dtype = torch.float64 if double else torch.float32
    return Attribution(client_ids, contributions.to(dtype), scores.to(dtype), predicted)


def _check_arguments(
    clients: Mapping[str, Weights],
    num_inputs: int,
    layer_decay: float,
    client_weights: Mapping[str, float] | None,
    batch_size: int | None,
) -> None:
    if not clients:
        raise ValueError("no clients: attribute() needs the weights of at least one")
    if not num_inputs:
        raise ValueError("no inputs: attribute() needs at least one")
    if not 0 < layer_decay <= 1:
        raise ValueError(f"layer_decay must lie in (0, 1], got {layer_decay}")
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    missing = [] if client_weights is None else [k for k in clients if k not in client_weights]
    if missing:
        raise ValueError(f"client_weights has no weight for clients {', '.join(missing)}")


def _check_weights(
    model: nn.Module, clients: Mapping[str, Weights], layers: Mapping[str, nn.Module], reference: Weights | None
) -> None:
    """Refuse clients whose traced parameters do not fit, before anything is computed."""
    expected = {
        _join(name, parameter): tuple(getattr(layer, parameter).shape)
        for name, layer in layers.items()
        for parameter in own_parameters(layer)
    }
    if not expected:
        raise ModelMismatchError(f"{type(model).__name__} has no layer that can be traced")
    owners: list[tuple[str, Weights]] = [(f"client {k!r}", weights) for k, weights in clients.items()]
    if reference is not None:
        owners.append(("the reference", reference))
    for owner, weights in owners:
        for name, shape in expected.items():
            if name not in weights:
                raise ModelMismatchError(f"{owner} lacks parameter {name!r} of the global model, shape {shape}")
            if tuple(weights[name].shape) != shape:
                raise ModelMismatchError(
                    f"{owner} has parameter {name!r} in shape {tuple(weights[name].shape)}, the global model in {shape}"
                )


def _batch_first(forward_of_one: tuple[Tensor, Mapping[str, LayerCalls]]) -> bool:
    """Tell from the forward of a single input whether every layer's first dimension is the batch's."""
    _, calls = forward_of_one
    tensors = (t for call in calls.values() for t in (*call.inputs, *call.outputs))
    return all(t.ndim > 1 and len(t) == 1 for t in tensors)


def _join(layer_name: str, parameter: str) -> str:
    return f"{layer_name}.{parameter}" if layer_name else parameter


def _count(inputs: Inputs) -> int:
    return len(next(iter(inputs.values()))) if isinstance(inputs, Mapping) else len(inputs)


def _slice(inputs: Inputs, start: int, stop: int, device: torch.device) -> Inputs:
    if isinstance(inputs, Mapping):
        return {name: tensor[start:stop].to(device) for name, tensor in inputs.items()}
    return inputs[start:stop].to(device)
