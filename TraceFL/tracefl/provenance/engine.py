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

import warnings
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tracefl.errors import ModelMismatchError
from tracefl.provenance.attribution import Attribution
from tracefl.provenance.capture import frozen_eval
from tracefl.provenance.compute import Compute
from tracefl.provenance.given import check_by_id, named, tensors_of
from tracefl.provenance.inputs import Batch, Inputs, plain_model, read_batch
from tracefl.provenance.layers import OPTIONS
from tracefl.provenance.modes import in_any_mode
from tracefl.provenance.options import Weighting, gamed
from tracefl.provenance.passes import Found, Question, answer
from tracefl.provenance.record import ClientId
from tracefl.provenance.shares import Sizes, shares_of, weighted
from tracefl.provenance.sources import Weights
from tracefl.provenance.targets import Target, check_target
from tracefl.provenance.untraced import warn_untraced


@in_any_mode
def attribute(
    global_model: nn.Module,
    clients: Mapping[ClientId, Any],
    inputs: Inputs,
    *,
    p: Sizes | None = None,
    target: Target = "centered",
    weighting: Weighting = "leave_one_out",
    reference: Weights | Literal["global", "none"] = "global",
    layer_decay: float = 1.0,
    base: Weights | None = None,
    layers: Sequence[str] | None = None,
    also: Collection[str] = OPTIONS,
    by_layer: bool = False,
    check: bool = True,
    compute: Compute = Compute(),
) -> Attribution:
    """Attribute the global model's predictions to the clients it averages.

    As it is called, ``attribute(model, clients, inputs, p=sizes)``, it estimates to first order by how much the
    predicted class's logit, less the mean of all, falls if a client is left out of the average: the preset
    ``removal``, unverified. The published formula (Gill et al. 2025, Eq. 2 to 6) is ``target="predicted",
    weighting="none", reference="none", layer_decay=0.9, also=()``; of a whole round it is ``Method.artifact()``.

    Args:
        global_model: The averaged model. It runs in evaluation mode; its mode, hooks, gradients and device are
            restored.
        clients: Client id to its parameters by name, as in ``state_dict()``, of tensors or NumPy arrays, extra names
            ignored; or to a list of arrays in its order; or to the safetensors file that holds them, which is read
            block by block, once for each batch of inputs. Names may differ from the model's by a common prefix.
        inputs: ``(B, ...)`` one batch in the model's input shape, or a mapping of such tensors for transformers.
        p: The clients' shares p_k of the average, or their numbers of examples: by id, or in the order of the clients.
            None for equal shares; where a weighting needs them, a warning says so.
        target: ``"predicted"`` logit, ``"margin"`` (minus the runner-up's), ``"centered"`` (minus the mean of all),
            ``"all"`` classes' logits, or a ``(B,)`` integer tensor: the logit of that class.
        weighting: Factor of client k's contribution: 1 with ``"none"``, p_k with ``"num_examples"``, with
            ``"leave_one_out"`` p_k / (1 - p_k), the step of the average when the client is left out.
        reference: What is subtracted from every client's weights: ``"global"`` those of ``global_model``, which is
            their average; ``"none"`` nothing; or other weights by name, such as those the clients started from.
            Without a weighting it changes no score.
        layer_decay: Factor in (0, 1] for each layer further from the output.
        base: Where ``clients`` holds differences: the parameters they are added to.
        layers: Names of the layers to trace, as in ``named_modules()``; a name stands for everything below it. None
            traces all parameters but those of the kinds that ``also`` leaves out.
        also: Kinds of layer that are traced too: ``"batch_norm"`` (its parameters, and its running statistics to first
            order; meant for differences, so with a ``reference``) and ``"embedding"``.
        by_layer: Whether to return the terms of the sum over layers too; the products are then taken layer by layer.
        check: Whether the result checks itself (checks.py); without, a model of which the engine's rules do not hold is
            not noticed.
        compute: The device, and the bounds on memory.

    Returns:
        Contributions and scores of shape ``(B, K)``, columns in the order of ``clients``; ``(B, K, C)`` for ``"all"``.
        With ``by_layer`` also what each traced layer adds to them, ``(..., L)``.

    Raises:
        ModelMismatchError: A client lacks a traced parameter, or has it in another shape or with values that are not
            finite.
        LayerNotTraceableError: A name in ``layers`` cannot be traced.
        CheckError: The result does not hold.
        RecordError: A client's file cannot be read.
        TypeError: ``clients`` is no mapping.
        ValueError: No clients, no inputs, or an argument out of range.
    """
    check_by_id(clients)
    if isinstance(reference, str) and reference not in ("global", "none"):
        raise ValueError(f"reference must be global, none or weights by name, got {reference!r}")
    if p is None and weighting != "none" and len(clients) > 1:
        warnings.warn(f"no p is given: the {len(clients)} clients are taken to count equally", stacklevel=3)
    if weakness := gamed(target if isinstance(target, str) else "label"):
        warnings.warn(weakness, stacklevel=3)
    given: Weights | None = None if isinstance(reference, str) else reference
    if reference == "global":
        given = plain_model(global_model).state_dict()
    (found,) = attribute_targets(
        global_model,
        clients,
        inputs,
        (target,),
        layer_decay=layer_decay,
        factors=weighted(shares_of(clients, p), weighting),
        reference=given,
        base=base,
        layers=layers,
        also=also,
        by_layer=by_layer,
        check=check,
        compute=compute,
    )
    return found


def attribute_targets(
    global_model: nn.Module,
    clients: Mapping[ClientId, Any],
    inputs: Inputs,
    targets: Sequence[Target],
    *,
    layer_decay: float,
    factors: Mapping[ClientId, float] | None,
    reference: Weights | None,
    base: Weights | None = None,
    layers: Sequence[str] | None,
    also: Collection[str],
    by_layer: bool,
    check: bool,
    compute: Compute,
    steps: Mapping[str, float] = MappingProxyType({}),
) -> list[Attribution]:
    """Attribute several targets in one forward pass: bit for bit what ``attribute`` returns for each.

    Arguments and errors are those of ``attribute``, but for ``factors``, each client's factor of its contribution or
    None; ``reference``, the weights to subtract or None; and ``steps``, by a tensor's name, the factor of what it adds,
    where that is not 1.
    """
    _check_arguments(clients, layer_decay, also)
    model = plain_model(global_model)
    like = tensors_of(model)
    clients = {k: named(f"client {k!r}", weights, like, whole=False) for k, weights in clients.items()}
    reference = None if reference is None else named("the reference", reference, like, whole=False)
    base = None if base is None else named("the base", base, like, whole=False)
    with frozen_eval(model, compute.device) as place:
        batch = read_batch(model, inputs, place)
        classes = [check_target(target, batch.count) for target in targets]
        ask = Question(
            model=model,
            clients=clients,
            targets=targets,
            classes=classes,
            layer_decay=layer_decay,
            reference=reference,
            base=base,
            steps=steps,
            layers=layers,
            also=tuple(also),
            by_layer=by_layer,
            compute=compute,
            check=check,
            place=place,
        )
        found = answer(ask, batch)
        if layers is None:
            warn_untraced(ask, found)
    results = []
    for target, parts in zip(targets, found.parts, strict=True):
        parts = parts if isinstance(target, str) and target == "all" else parts.squeeze(2)
        if not parts.isfinite().all():
            raise _why_not_finite(model, tuple(clients), parts, batch)
        results.append(_result(tuple(clients), parts, found, factors, by_layer))
    return results


def _result(
    client_ids: tuple[ClientId, ...],
    parts: Tensor,
    found: Found,
    factors: Mapping[ClientId, float] | None,
    by_layer: bool,
) -> Attribution:
    """Weigh and normalise the contributions, ``(B, K, L)`` or ``(B, K, C, L)``."""
    dtype = torch.promote_types(found.dtype, torch.float32)
    layers = found.traced.names if by_layer else ()
    by_client = parts.transpose(0, 1)
    if factors is not None:
        each = torch.tensor([factors[k] for k in client_ids], dtype=torch.float64)
        by_client = by_client * each.view(-1, *(1 for _ in by_client.shape[1:]))
    parts = by_client.transpose(0, 1)
    total = parts.sum(dim=-1)
    terms = parts.to(dtype) if by_layer else None
    return Attribution(client_ids, total.to(dtype), total.softmax(dim=1).to(dtype), found.predicted, layers, terms)


def _why_not_finite(model: nn.Module, client_ids: tuple[ClientId, ...], parts: Tensor, batch: Batch) -> ValueError:
    """Return the error that says why contributions, ``(B, K, ...)``, are not finite."""
    finite = parts.flatten(2).isfinite().all(dim=2)  # (B, K)
    own = [i for i in torch.nonzero(~finite.all(dim=1)).flatten().tolist() if not batch.is_finite(i)]
    if own:
        return ValueError(f"input {own[0]} holds values that are not finite: mend it or leave it out")
    broken = [name for name, tensor in tensors_of(model).items() if not tensor.isfinite().all()]
    if broken:
        return ModelMismatchError(f"the global model holds values that are not finite, in {broken[0]!r}: average again")
    bad = [str(k) for k, ok in zip(client_ids, finite.all(dim=0).tolist(), strict=True) if not ok]
    if len(bad) == len(client_ids) > 1:
        return ModelMismatchError(
            "contributions of all clients are not finite, though the inputs and the global model are: its logits or "
            "their gradients overflow; take a wider type of numbers"
        )
    return ModelMismatchError(f"contributions of clients {', '.join(bad)} are not finite: leave those clients out")


def _check_arguments(
    clients: Mapping[ClientId, Any],
    layer_decay: float,
    also: Collection[str],
) -> None:
    if not clients:
        raise ValueError("no clients: attribute() needs the weights of at least one")
    if not 0 < layer_decay <= 1:
        raise ValueError(f"layer_decay must lie in (0, 1], got {layer_decay}")
    if isinstance(also, str) or not set(also) <= set(OPTIONS):
        raise ValueError(f"also may name {', '.join(OPTIONS)}, got {also!r}")
