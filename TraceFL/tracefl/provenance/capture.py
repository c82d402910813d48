"""One forward and one backward pass of the global model: every traced layer's input and the gradient of its output."""

import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from tracefl.common.names import did_you_mean
from tracefl.errors import LayerNotTraceableError
from tracefl.provenance.inputs import Inputs, count_inputs, forward
from tracefl.provenance.layers import gradient_rule, option_of, traced_tensors


@dataclass
class LayerCalls:
    """What one layer saw in a forward pass, one entry per call: a shared layer is called several times."""

    inputs: list[Tensor] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)
    input_versions: list[int] = field(default_factory=list)


class ActivationsTooLargeError(Exception):
    """The recorded activations exceed the memory budget: fewer inputs must be taken at a time."""


def traced_layers(model: nn.Module, layers: Sequence[str] | None, also: Collection[str] = ()) -> dict[str, nn.Module]:
    """Return the layers to trace by name, in the order of ``named_modules()``.

    Args:
        model: The global model.
        layers: Names as in ``named_modules()``; a name stands for every traceable layer at or below it. None traces
            all; a warning names those with parameters that cannot be traced.
        also: Kinds of layer that are traced only on request, see ``layers.OPTIONS``.

    Raises:
        LayerNotTraceableError: A name does not exist, or nothing at or below it can be traced.
    """
    modules = dict(model.named_modules())
    traceable = {
        name: module
        for name, module in modules.items()
        if gradient_rule(module, also) is not None and traced_tensors(module)
    }
    if layers is None:
        with_parameters = {n: m for n, m in modules.items() if next(m.parameters(recurse=False), None) is not None}
        _warn_untraced({name: module for name, module in with_parameters.items() if name not in traceable})
        return traceable
    chosen: set[str] = set()
    for wanted in layers:
        if wanted not in modules:
            raise LayerNotTraceableError(
                f"layer {wanted!r} does not exist in the model; name layers as in named_modules() "
                f"(provenance.layers){did_you_mean(wanted, modules)}"
            )
        below = {name for name in traceable if not wanted or name == wanted or name.startswith(f"{wanted}.")}
        if not below:
            kind = type(modules[wanted]).__name__
            raise LayerNotTraceableError(
                f"layer {wanted!r} is a {kind}, which cannot be traced; leave it out of provenance.layers"
            )
        chosen |= below
    return {name: module for name, module in traceable.items() if name in chosen}


def _warn_untraced(untraced: Mapping[str, nn.Module], shown: int = 20) -> None:
    """Name, in one warning, the layers whose parameters take no part in the attribution."""
    if not untraced:
        return
    kinds: dict[str, list[str]] = {}
    for name, module in untraced.items():
        kinds.setdefault(type(module).__name__, []).append(name or "the model itself")
    parts = []
    for kind, names in kinds.items():
        more = f" and {len(names) - shown} more" if len(names) > shown else ""
        parts.append(f"{len(names)} {kind} ({', '.join(names[:shown])}{more})")
    options = sorted({option for module in untraced.values() if (option := option_of(module)) is not None})
    ask = f"; also={options} would trace some of them" if options else ""
    warnings.warn(f"not traced: {'; '.join(parts)}{ask}", stacklevel=5)


@contextmanager
def frozen_eval(model: nn.Module, device: torch.device | str | None) -> Iterator[torch.device]:
    """Put a model in evaluation mode on ``device`` with frozen parameters, and restore it afterwards.

    Yields:
        The device to compute on: ``device``, or the model's own if that is None.
    """
    training = {module: module.training for module in model.modules()}
    requires_grad = {parameter: parameter.requires_grad for parameter in model.parameters()}
    home = next((tensor.device for tensor in model.state_dict().values()), torch.device("cpu"))
    place = home if device is None else torch.device(device)
    try:
        if device is not None:
            model.to(place)
        model.eval()
        for parameter in requires_grad:
            parameter.requires_grad_(False)  # so that no gradient of the model's own parameters is computed
        yield place
    finally:
        for parameter, flag in requires_grad.items():
            parameter.requires_grad_(flag)
        for module, mode in training.items():
            module.training = mode
        if device is not None:
            model.to(home)


@contextmanager
def _recording(layers: Mapping[str, nn.Module], limit_bytes: int | None, size: int) -> Iterator[dict[str, LayerCalls]]:
    """Record every call of the layers within the context; the hooks are removed at its end, even after an error.

    An embedding that is looked up once for a whole batch, such as one of positions, is repeated for each of the batch's
    ``size`` inputs, so that they can be told apart.
    """
    calls = {name: LayerCalls() for name in layers}
    held = 0

    def record(name: str) -> Any:
        def hook(layer: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
            if not args or not isinstance(args[0], Tensor) or not isinstance(output, Tensor):
                raise LayerNotTraceableError(
                    f"layer {name!r} was not called with one Tensor that gives one Tensor; exclude it with "
                    "provenance.layers"
                )
            layer_input = args[0].detach()
            if isinstance(layer, nn.Embedding) and layer_input.ndim == 2 and len(layer_input) == 1 < size:
                layer_input, output = layer_input.expand(size, -1), output.expand(size, -1, -1)
            nonlocal held
            held += _bytes_held(layer, layer_input, output)
            if limit_bytes is not None and held > limit_bytes:
                raise ActivationsTooLargeError
            call = calls[name]
            call.inputs.append(layer_input)
            call.input_versions.append(layer_input._version)
            # With frozen parameters the graph begins at the first traced layers' outputs.
            if not output.requires_grad:
                output = output.detach().requires_grad_()
            call.outputs.append(output)
            return output.clone()  # an activation that works in place must not reach the recorded output

        return hook

    with ExitStack() as stack:
        for name, layer in layers.items():
            stack.callback(layer.register_forward_hook(record(name)).remove)
        yield calls


def _bytes_held(layer: nn.Module, layer_input: Tensor, output: Tensor) -> int:
    """Return the bytes a call needs: input, output, the output's copy and gradient, and a kernel's unfolded windows."""
    held = layer_input.numel() * layer_input.itemsize + 3 * output.numel() * output.itemsize
    weight = getattr(layer, "weight", None)
    if isinstance(weight, Tensor) and weight.ndim > 2:
        held += output.numel() // weight.shape[0] * weight[0].numel() * output.itemsize
    return held


def run_forward(
    model: nn.Module, inputs: Inputs, layers: Mapping[str, nn.Module], limit_bytes: int | None = None
) -> tuple[Tensor, dict[str, LayerCalls]]:
    """Run the model once and record its traced layers.

    Args:
        model: The model, its parameters frozen.
        inputs: One batch.
        layers: The traced layers by name.
        limit_bytes: Maximum size of what is recorded; None for no limit.

    Returns:
        Logits ``(B, C)`` with a graph back to the layers' outputs, and the calls of the layers that were called, in
        the order of ``layers``.

    Raises:
        LayerNotTraceableError: A layer's input was overwritten after the layer saw it.
        ActivationsTooLargeError: The limit is exceeded.
    """
    with torch.enable_grad(), _recording(layers, limit_bytes, count_inputs(inputs)) as calls:
        logits = forward(model, inputs)
    for name, call in calls.items():
        if any(z._version != v for z, v in zip(call.inputs, call.input_versions, strict=True)):
            # No trainable model does this: the layer's own backward pass needs the input too.
            raise LayerNotTraceableError(
                f"the input of layer {name!r} is overwritten in place later in the forward; exclude the layer with "
                "provenance.layers, or make the model's operation out of place"
            )
    uncalled = [name for name, call in calls.items() if not call.outputs]
    if uncalled:
        warnings.warn(f"not traced, for the forward never calls them: {', '.join(uncalled)}", stacklevel=4)
    return logits, {name: call for name, call in calls.items() if call.outputs}
