"""The kinds of layer that can be traced, and the gradient of each one's parameters, input by input.

Each kind is linear in its parameters, output = sum of parameter times something known. So the inner product of a
client's parameters with the gradient given here is exactly what that client's layer, applied to the global layer's
input, contributes to the target.

Shapes: b inputs, s positions (tokens, pixels), i and o input and output features, q = i/groups * kernel size.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ParameterGradients: TypeAlias = dict[str, Tensor]
"""Parameter name to the ``(B, *parameter shape)`` gradient of each input's target."""

GradientRule: TypeAlias = Callable[[nn.Module, Tensor, Tensor], ParameterGradients]

_RULES: dict[type[nn.Module] | str, tuple[GradientRule, frozenset[str]]] = {}


def register_layer(
    *kinds: type[nn.Module] | str, parameters: Sequence[str] = ("weight", "bias")
) -> Callable[[GradientRule], GradientRule]:
    """Register how a kind of layer's parameter gradients follow from its input and its output's gradient.

    Args:
        kinds: Module classes; or ``"package.Class"`` of a package that is not to be imported for it, e.g.
            ``"transformers.Conv1D"``.
        parameters: All parameters that a layer of the kind may have. One with others, as weight normalisation makes
            them, is not traced.

    Returns:
        A decorator for a function of the layer, its ``(B, ...)`` input and the ``(B, ...)`` gradient of its output.
        It names only parameters that the layer has: none for a bias that is None.
    """

    def decorator(rule: GradientRule) -> GradientRule:
        for kind in kinds:
            _RULES[kind] = (rule, frozenset(parameters))
        return rule

    return decorator


def gradient_rule(layer: nn.Module) -> GradientRule | None:
    """Return the rule of a layer's kind, inherited kinds included, or None where it cannot be traced."""
    for kind in type(layer).__mro__:
        registered = _RULES.get(kind) or _RULES.get(f"{kind.__module__.split('.')[0]}.{kind.__name__}")
        if registered is not None:
            rule, parameters = registered
            # A subclass with a forward of its own computes something that this rule knows nothing of.
            same = getattr(type(layer), "forward", None) is getattr(kind, "forward", None)
            return rule if same and parameters.issuperset(own_parameters(layer)) else None
    return None


def own_parameters(layer: nn.Module) -> Iterator[str]:
    """Yield the names of the layer's own parameters, those of its children left out."""
    for name, _ in layer.named_parameters(recurse=False):
        yield name


def output_features(layer: nn.Module) -> int:
    """Return how many features one output position of a registered layer has."""
    for name in ("out_features", "out_channels", "nf"):
        if hasattr(layer, name):
            return int(getattr(layer, name))
    return sum(parameter.numel() for parameter in layer.parameters(recurse=False)) or 1


def _positions(tensor: Tensor) -> Tensor:
    """View ``(B, ..., features)`` as ``(B, positions, features)``."""
    return tensor.reshape(len(tensor), -1, tensor.shape[-1])


@register_layer(nn.Linear)
def _linear(layer: nn.Module, layer_input: Tensor, gradient: Tensor) -> ParameterGradients:
    z, g = _positions(layer_input), _positions(gradient)
    gradients = {"weight": torch.einsum("bso,bsi->boi", g, z)}
    if layer.bias is not None:
        gradients["bias"] = g.sum(dim=1)
    return gradients


@register_layer("transformers.Conv1D")
def _transposed_linear(_: nn.Module, layer_input: Tensor, gradient: Tensor) -> ParameterGradients:
    z, g = _positions(layer_input), _positions(gradient)
    return {"weight": torch.einsum("bsi,bso->bio", z, g), "bias": g.sum(dim=1)}


@register_layer(nn.Conv1d, nn.Conv2d)
def _convolution(layer: nn.Module, layer_input: Tensor, gradient: Tensor) -> ParameterGradients:
    assert isinstance(layer, nn.Conv1d | nn.Conv2d)
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    z = F.pad(layer_input, layer._reversed_padding_repeated_twice, mode=mode)  # every padding, "same" included
    kernel_size, dilation, stride = layer.kernel_size, layer.dilation, layer.stride
    if isinstance(layer, nn.Conv1d):  # an image one pixel high
        z, gradient = z.unsqueeze(2), gradient.unsqueeze(2)
        kernel_size, dilation, stride = (1, *kernel_size), (1, *dilation), (1, *stride)
    patches = F.unfold(z, kernel_size, dilation=dilation, stride=stride)  # (b, i * kernel size, s)
    patches = patches.reshape(len(z), layer.groups, -1, patches.shape[-1])  # (b, groups, q, s)
    g = gradient.reshape(len(z), layer.groups, -1, patches.shape[-1])  # (b, groups, o / groups, s)
    weight = torch.einsum("bgos,bgqs->bgoq", g, patches)
    gradients = {"weight": weight.reshape(len(z), *layer.weight.shape)}
    if layer.bias is not None:
        gradients["bias"] = gradient.flatten(2).sum(dim=2)
    return gradients


@register_layer(nn.LayerNorm)
def _layer_norm(layer: nn.Module, layer_input: Tensor, gradient: Tensor) -> ParameterGradients:
    assert isinstance(layer, nn.LayerNorm)
    gradients = {}
    shape = (len(layer_input), -1, *layer.normalized_shape)
    if layer.weight is not None:
        normalized = F.layer_norm(layer_input, layer.normalized_shape, eps=layer.eps)
        gradients["weight"] = (normalized * gradient).reshape(shape).sum(dim=1)
    if layer.bias is not None:
        gradients["bias"] = gradient.reshape(shape).sum(dim=1)
    return gradients
