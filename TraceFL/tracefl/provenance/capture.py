"""One forward and one backward pass of the global model: every traced layer's input and the gradient of its output."""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import checkpoint

from tracefl.errors import LayerNotTraceableError
from tracefl.provenance.inputs import Inputs, forward


@dataclass
class LayerCalls:
    """What one layer saw in a forward pass, one entry per call: a shared layer is called several times."""

    inputs: list[Tensor] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)
    input_versions: list[int] = field(default_factory=list)


class ActivationsTooLargeError(Exception):
    """The recorded activations exceed the memory budget: fewer inputs must be taken at a time."""


class RuleDoesNotHoldError(Exception):
    """Some layers do something else than their kind's rule says: they must be differentiated.

    Attributes:
        layers: Their names.
    """

    def __init__(self, *layers: str) -> None:
        super().__init__(", ".join(layers))
        self.layers = layers


@contextmanager
def frozen_eval(model: nn.Module, device: torch.device | str | None) -> Iterator[torch.device]:
    """Put a model in evaluation mode on ``device`` with frozen parameters, and restore it afterwards.

    Within, no graph is kept unless asked for, whatever the caller's mode. Hooks that change gradients are off, and so
    are the fused kernel of attention, which calls no layers, and reentrant checkpointing, which hides layers from
    differentiation.

    Yields:
        The device to compute on: ``device``, or the model's own if that is None.
    """
    training = {module: module.training for module in model.modules()}
    requires_grad = {parameter: parameter.requires_grad for parameter in model.parameters()}
    home = next((tensor.device for tensor in model.state_dict().values()), torch.device("cpu"))
    place = home if device is None else torch.device(device)
    hooks = {module: (module._backward_hooks, module._backward_pre_hooks) for module in model.modules()}
    kept = {module: {k: v for k, v in vars(module).items() if isinstance(v, Tensor)} for module in model.modules()}
    fused, reentrant = torch.backends.mha.get_fastpath_enabled(), checkpoint.CheckpointFunction
    try:
        if device is not None:
            model.to(place)
        model.eval()
        for parameter in requires_grad:
            parameter.requires_grad_(False)  # so that no gradient of the model's own parameters is computed
        for module in hooks:
            module._backward_hooks, module._backward_pre_hooks = OrderedDict(), OrderedDict()
        torch.backends.mha.set_fastpath_enabled(False)
        checkpoint.CheckpointFunction = _NoCheckpoint  # type: ignore[assignment,misc]
        with torch.inference_mode(False), torch.no_grad():
            yield place
    finally:
        checkpoint.CheckpointFunction = reentrant  # type: ignore[misc]
        torch.backends.mha.set_fastpath_enabled(fused)
        for module, tensors in kept.items():  # such as a weight that a hook makes of others before each forward
            vars(module).update(tensors)
        for module, (after, before) in hooks.items():
            module._backward_hooks, module._backward_pre_hooks = after, before
        for parameter, flag in requires_grad.items():
            parameter.requires_grad_(flag)
        for module, mode in training.items():
            module.training = mode
        if device is not None:
            model.to(home)


class _NoCheckpoint:
    """What stands for ``checkpoint(..., use_reentrant=True)``: the same computation, with its graph."""

    @staticmethod
    def apply(function: Callable[..., Any], _preserve_rng_state: bool, *args: Any) -> Any:
        return function(*args)


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
                raise RuleDoesNotHoldError(name)
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
    model: nn.Module,
    inputs: Inputs,
    count: int,
    layers: Mapping[str, nn.Module],
    limit_bytes: int | None = None,
    graph: bool = True,
) -> tuple[Tensor, dict[str, LayerCalls]]:
    """Run the model once and record its traced layers.

    Args:
        model: The model, its parameters frozen.
        inputs: One batch, which the model may change.
        count: How many inputs it holds.
        layers: The layers that are traced by a rule, by name.
        limit_bytes: Maximum size of what is recorded; None for no limit.
        graph: Whether the logits keep a graph.

    Returns:
        Logits ``(B, C)``, with a graph back to the layers' outputs, and the calls of the layers that were called, in
        the order of ``layers``.

    Raises:
        LayerNotTraceableError: A layer's input was overwritten after the layer saw it.
        RuleDoesNotHoldError: A layer was not called with one tensor that gives one tensor.
        ActivationsTooLargeError: The limit is exceeded.
    """
    with torch.set_grad_enabled(graph), _recording(layers, limit_bytes, count) as calls:
        logits = forward(model, inputs)
    for name, call in calls.items():
        if any(z._version != v for z, v in zip(call.inputs, call.input_versions, strict=True)):
            # No trainable model does this: the layer's own backward pass needs the input too.
            raise LayerNotTraceableError(
                f"the input of layer {name!r} is overwritten in place later in the forward; exclude the layer with "
                "provenance.layers, or make the model's operation out of place"
            )
    return logits, {name: call for name, call in calls.items() if call.outputs}
