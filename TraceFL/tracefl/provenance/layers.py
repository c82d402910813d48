"""The kinds of layer that can be traced, and a rule for each: its parameters' gradients, input by input.

Each kind is linear in its parameters (BatchNorm: to first order), output = sum of parameter times something known. So
the inner product of a client's parameters with the gradient given here is exactly what that client's layer, applied to
the global layer's input, contributes to the target.

A gradient is given either as it is or as ``OuterProducts``: two factors whose outer products over the layer's positions
sum up to it. In the second form it need never be formed where another order of multiplication is cheaper
(contraction.py).

Shapes: B inputs, C targets per input, S positions (tokens, pixels), G groups, i and o input and output features, t
kernel taps.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tracefl.provenance.windows import Window, windows


@dataclass(frozen=True)
class OuterProducts:
    """A parameter's gradient, sum over positions of (gradient of the output) x (input of the layer).

    Attributes:
        gradient: ``(B, C, G, S, m)`` gradient of the targets with respect to the layer's output.
        layer_input: ``(B, G, S, n)`` what the layer saw.
        rows_from_input: Whether the parameter's first dimension runs over the input's features, as in transposed
            layers, instead of the output's. In memory, the parameter is then ``(n, m)`` within a group, otherwise ``(m,
            n)``.
        taps: The part of the parameter's trailing dimensions that the factors cover; the rest meets only padding, so
            its gradient is 0. Empty for all.
    """

    gradient: Tensor
    layer_input: Tensor
    rows_from_input: bool = False
    taps: tuple[slice, ...] = ()

    def to(self, dtype: torch.dtype) -> "OuterProducts":
        """Round the factors to ``dtype``."""
        return OuterProducts(self.gradient.to(dtype), self.layer_input.to(dtype), self.rows_from_input, self.taps)


@dataclass(frozen=True)
class RowGradients:
    """The gradients of the few rows of a parameter that each input uses; those of the others are 0.

    Attributes:
        gradient: ``(C, N, columns)``, one entry for each of the N pairs of an input and a row that it uses.
        inputs: ``(N,)`` the input of each pair.
        places: ``(N,)`` where each pair's row is in ``rows``, ascending.
        rows: ``(rows,)`` the numbers of the rows that some input uses.
        num_inputs: B.
    """

    gradient: Tensor
    inputs: Tensor
    places: Tensor
    rows: Tensor
    num_inputs: int

    def part(self, rows: slice) -> "RowGradients":
        """Return the gradients of some of the rows."""
        ends = torch.tensor([rows.start, rows.stop], device=self.places.device)
        here = slice(*torch.searchsorted(self.places, ends).tolist())
        places = self.places[here] - rows.start
        return RowGradients(self.gradient[:, here], self.inputs[here], places, self.rows[rows], self.num_inputs)

    def of_one_input(self) -> "RowGradients":
        """Return the gradients as if all inputs were parts of one."""
        return RowGradients(self.gradient, torch.zeros_like(self.inputs), self.places, self.rows, 1)


ParameterGradient: TypeAlias = Tensor | OuterProducts | RowGradients
"""A tensor is the gradient itself, ``(B, C, *parameter shape)``."""

GradientRule: TypeAlias = Callable[[nn.Module, Tensor, Tensor], dict[str, ParameterGradient]]


@dataclass(frozen=True)
class _Kind:
    rule: GradientRule
    tensors: tuple[str, ...]
    option: str | None


_KINDS: dict[type[nn.Module] | str, _Kind] = {}

OPTIONS = ("batch_norm", "embedding")
"""Kinds of layer that are traced only on request."""


def register_layer(
    *kinds: type[nn.Module] | str, tensors: Sequence[str] = ("weight", "bias"), option: str | None = None
) -> Callable[[GradientRule], GradientRule]:
    """Register a rule that gives a kind of layer's parameter gradients from its input and its output's gradient.

    Args:
        kinds: Module classes; or ``"package.Class"`` of a package that must not be imported just for this, e.g.
            ``"transformers.Conv1D"``.
        tensors: All parameters and buffers that the rule knows. A layer with other parameters, such as those of weight
            normalisation, is not traced.
        option: A member of ``OPTIONS``: such layers are traced only where ``attribute(also=...)`` names it.

    Returns:
        A decorator for a function of the layer, its ``(B, ...)`` input and the ``(B, C, ...)`` gradients of C targets
        with respect to its output. The function names only tensors that the layer has: no bias where that is None.
    """

    def decorator(rule: GradientRule) -> GradientRule:
        for kind in kinds:
            _KINDS[kind] = _Kind(rule, tuple(tensors), option)
        return rule

    return decorator


def gradient_rule(layer: nn.Module) -> GradientRule | None:
    """Return the rule of a layer's kind, inherited kinds included, or None where there is none."""
    kind = _kind(layer)
    return None if kind is None else kind.rule


def traced_tensors(layer: nn.Module) -> tuple[str, ...]:
    """Return the names of a traced layer's own parameters and buffers that its rule knows."""
    kind = _kind(layer)
    return () if kind is None else tuple(name for name in kind.tensors if getattr(layer, name, None) is not None)


def kind_option(layer: nn.Module) -> str | None:
    """Return the option with which layers of this kind, those of subclasses included, are traced; None for always."""
    if isinstance(layer, nn.EmbeddingBag):
        return "embedding"
    found = (kind.option for cls in type(layer).__mro__ if (kind := _registered(cls)) is not None)
    return next(found, None)


def _registered(cls: type) -> _Kind | None:
    return _KINDS.get(cls) or _KINDS.get(f"{cls.__module__.split('.')[0]}.{cls.__name__}")


def _kind(layer: nn.Module) -> _Kind | None:
    for cls in type(layer).__mro__:
        kind = _registered(cls)
        if kind is not None:
            # The rule knows nothing of what a subclass with its own forward computes.
            same = getattr(type(layer), "forward", None) is getattr(cls, "forward", None)
            own = {name for name, _ in layer.named_parameters(recurse=False)}
            return kind if same and own.issubset(kind.tensors) and _as_registered(layer) else None
    return None


def _as_registered(layer: nn.Module) -> bool:
    """Return whether the layer's options leave its output linear in its parameters."""
    if isinstance(layer, nn.modules.batchnorm._BatchNorm):
        return layer.running_mean is not None  # otherwise it normalises by the batch, in evaluation too
    if isinstance(layer, nn.Embedding):
        return layer.max_norm is None and not layer.scale_grad_by_freq
    return True


@register_layer(nn.Linear)
def _linear(layer: nn.Module, layer_input: Tensor, gradient: Tensor) -> dict[str, ParameterGradient]:
    z, g = _positions(layer_input, 1), _positions(gradient, 2)
    gradients: dict[str, ParameterGradient] = {"weight": OuterProducts(g, z)}
    if layer.bias is not None:
        gradients["bias"] = g.sum(dim=(2, 3))
    return gradients


@register_layer("transformers.Conv1D")
def _transposed_linear(_: nn.Module, layer_input: Tensor, gradient: Tensor) -> dict[str, ParameterGradient]:
    z, g = _positions(layer_input, 1), _positions(gradient, 2)
    return {"weight": OuterProducts(g, z, rows_from_input=True), "bias": g.sum(dim=(2, 3))}


@register_layer(nn.Conv1d, nn.Conv2d, nn.Conv3d)
def _convolution(layer: nn.Module, layer_input: Tensor, gradient: Tensor) -> dict[str, ParameterGradient]:
    assert isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d)
    padding = layer._reversed_padding_repeated_twice  # every padding, "same" included; last dimension first
    before, after = tuple(padding[-2::-2]), tuple(padding[::-2])
    sizes = zip(layer.kernel_size, layer.stride, layer.dilation, before, after, strict=True)
    window = [Window(*size) for size in sizes]
    if layer.padding_mode != "zeros":
        layer_input = F.pad(layer_input, padding, mode=layer.padding_mode)
        window = [w.without_padding() for w in window]
    z, taps = windows(layer_input, window, layer.groups)  # (B, G, S, i * t)
    gradients: dict[str, ParameterGradient] = {"weight": OuterProducts(_channels(gradient, layer.groups), z, taps=taps)}
    if layer.bias is not None:
        gradients["bias"] = gradient.flatten(3).sum(dim=3)
    return gradients


@register_layer(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
def _transposed_convolution(layer: nn.Module, layer_input: Tensor, gradient: Tensor) -> dict[str, ParameterGradient]:
    assert isinstance(layer, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d)
    # An input pixel reaches the outputs from stride * s - padding on: a convolution from the output to the input.
    window = []
    shape = zip(
        layer_input.shape[2:],
        gradient.shape[3:],
        layer.kernel_size,
        layer.stride,
        layer.dilation,
        layer.padding,
        strict=True,
    )
    for n_in, n_out, kernel, stride, dilation, padding in shape:
        reach = (n_in - 1) * stride + (kernel - 1) * dilation + 1
        window.append(Window(kernel, stride, dilation, int(padding), reach - int(padding) - n_out))
    g, taps = windows(gradient.flatten(0, 1), window, layer.groups)  # (B * C, G, S, o * t)
    g = g.view(*gradient.shape[:2], *g.shape[1:])
    z = layer_input.reshape(len(layer_input), layer.groups, layer_input.shape[1] // layer.groups, -1).transpose(
        2, 3
    )  # (B, G, S, i)
    gradients: dict[str, ParameterGradient] = {"weight": OuterProducts(g, z, rows_from_input=True, taps=taps)}
    if layer.bias is not None:
        gradients["bias"] = gradient.flatten(3).sum(dim=3)
    return gradients


@register_layer(nn.LayerNorm, "timm.LayerNorm")
def _layer_norm(layer: nn.Module, layer_input: Tensor, gradient: Tensor) -> dict[str, ParameterGradient]:
    assert isinstance(layer, nn.LayerNorm)
    return _scaled(layer, F.layer_norm(layer_input, layer.normalized_shape, eps=layer.eps), gradient)


@register_layer(nn.GroupNorm)
def _group_norm(layer: nn.Module, layer_input: Tensor, gradient: Tensor) -> dict[str, ParameterGradient]:
    assert isinstance(layer, nn.GroupNorm)
    normalized = F.group_norm(layer_input, layer.num_groups, eps=layer.eps)
    return _scaled(layer, normalized.movedim(1, -1), gradient.movedim(2, -1))


@register_layer("torchvision.LayerNorm2d", "timm.LayerNorm2d")
def _layer_norm_of_channels(layer: nn.Module, layer_input: Tensor, gradient: Tensor) -> dict[str, ParameterGradient]:
    return _layer_norm(layer, layer_input.movedim(1, -1), gradient.movedim(2, -1))


@register_layer("transformers.ConvNextLayerNorm", "transformers.ConvNextV2LayerNorm")
def _layer_norm_of_either(layer: nn.Module, layer_input: Tensor, gradient: Tensor) -> dict[str, ParameterGradient]:
    of_channels = layer.data_format == "channels_first"
    return (_layer_norm_of_channels if of_channels else _layer_norm)(layer, layer_input, gradient)


@register_layer(nn.RMSNorm, tensors=("weight",))
def _rms_norm(layer: nn.Module, layer_input: Tensor, gradient: Tensor) -> dict[str, ParameterGradient]:
    assert isinstance(layer, nn.RMSNorm)
    return _scaled(layer, F.rms_norm(layer_input, layer.normalized_shape, eps=layer.eps), gradient)


@register_layer(
    *(f"transformers.{family}RMSNorm" for family in ("Llama", "Mistral", "Mixtral", "Qwen2", "Qwen3", "Phi3")),
    tensors=("weight",),
)
def _transformers_rms_norm(layer: nn.Module, layer_input: Tensor, gradient: Tensor) -> dict[str, ParameterGradient]:
    normalized = F.rms_norm(layer_input.float(), layer_input.shape[-1:], eps=float(layer.variance_epsilon))  # type: ignore[arg-type]
    return _scaled(layer, normalized.to(layer_input.dtype), gradient)


@register_layer("transformers.T5LayerNorm", tensors=("weight",))
def _t5_norm(layer: nn.Module, layer_input: Tensor, gradient: Tensor) -> dict[str, ParameterGradient]:
    variance = layer_input.float().square().mean(-1, keepdim=True)
    return _scaled(layer, layer_input * (variance + layer.variance_epsilon).rsqrt(), gradient)  # type: ignore[operator]


@register_layer(
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    tensors=("weight", "bias", "running_mean", "running_var"),
    option="batch_norm",
)
def _batch_norm(layer: nn.Module, layer_input: Tensor, gradient: Tensor) -> dict[str, ParameterGradient]:
    """In evaluation y = (x - m) * weight / sqrt(v + eps) + bias; to first order in m and v, exactly in the others."""
    assert isinstance(layer, nn.modules.batchnorm._BatchNorm)
    mean, variance = layer.running_mean, layer.running_var
    assert mean is not None
    assert variance is not None
    scale = (variance + layer.eps).rsqrt()  # (i,)
    features = (1, -1, *(1 for _ in layer_input.shape[2:]))
    normalized = (layer_input - mean.view(features)) * scale.view(features)
    g = gradient.reshape(*gradient.shape[:3], -1)  # (B, C, i, S)
    by_bias = g.sum(dim=3)
    by_weight = (g * normalized.reshape(len(normalized), 1, *g.shape[2:])).sum(dim=3)
    gradients: dict[str, ParameterGradient] = {**statistics_gradients(layer, by_weight, by_bias)}
    if layer.weight is not None:
        gradients |= {"weight": by_weight, "bias": by_bias}
    return gradients


def statistics_gradients(layer: nn.Module, by_weight: Tensor, by_bias: Tensor) -> dict[str, Tensor]:
    """Return the gradients of BatchNorm's running statistics, which follow from those of its weight and bias.

    In evaluation y = (x - m) * w / sqrt(v + eps) + b, whatever comes after, so dy/dm = -w / sqrt(v + eps) * dy/db and
    dy/dv = -w / (2 (v + eps)) * dy/dw.
    """
    assert isinstance(layer, nn.modules.batchnorm._BatchNorm)
    assert layer.running_var is not None
    scale = (layer.running_var + layer.eps).rsqrt()
    weight = torch.ones_like(scale) if layer.weight is None else layer.weight
    return {"running_mean": -by_bias * weight * scale, "running_var": -0.5 * by_weight * weight * scale.square()}


@register_layer("timm.BatchNormAct2d", tensors=("weight", "bias", "running_mean", "running_var"), option="batch_norm")
def _batch_norm_and_activation(layer: nn.Module, layer_input: Tensor, gradient: Tensor) -> dict[str, ParameterGradient]:
    """Timm's BatchNorm with what follows it: the gradient is first taken back through that."""
    assert isinstance(layer, nn.modules.batchnorm._BatchNorm)
    tensors = (layer.running_mean, layer.running_var, layer.weight, layer.bias)
    mean, variance, weight, bias = (None if tensor is None else tensor.to(layer_input) for tensor in tensors)
    with torch.enable_grad():
        normalized = F.batch_norm(layer_input, mean, variance, weight, bias, False, 0.0, layer.eps)
        normalized = normalized.detach().requires_grad_()
        after = layer.act(layer.drop(normalized.clone()))  # type: ignore[operator]
    before = [torch.autograd.grad(after, normalized, g, retain_graph=True)[0] for g in gradient.unbind(1)]
    return _batch_norm(layer, layer_input, torch.stack(before, dim=1))


@register_layer(nn.Embedding, tensors=("weight",), option="embedding")
def _embedding(layer: nn.Module, layer_input: Tensor, gradient: Tensor) -> dict[str, ParameterGradient]:
    assert isinstance(layer, nn.Embedding)
    count = len(layer_input)
    ids = layer_input.reshape(count, -1)  # (B, S)
    rows, place = torch.unique(ids, return_inverse=True)
    pairs, which = torch.unique(
        place * count + torch.arange(count, device=ids.device).unsqueeze(1), return_inverse=True
    )
    g = _positions(gradient, 2).squeeze(2).transpose(0, 1).flatten(1, 2)  # (C, B * S, features)
    total = g.new_zeros(len(g), len(pairs), g.shape[-1]).index_add_(1, which.flatten(), g)
    inputs, places = pairs % count, pairs // count
    if layer.padding_idx is not None:  # the padding row is not learnt
        total[:, rows[places] == layer.padding_idx] = 0
    return {"weight": RowGradients(total, inputs, places, rows, count)}


def _scaled(layer: nn.Module, normalized: Tensor, gradient: Tensor) -> dict[str, ParameterGradient]:
    """Return the gradients of a layer that multiplies normalised values by its weight and adds its bias."""
    gradients: dict[str, ParameterGradient] = {}
    parameter = next(layer.parameters(recurse=False))
    shape = (*gradient.shape[:2], -1, *parameter.shape)  # (B, C, S, *parameter)
    if layer.weight is not None:
        gradients["weight"] = (normalized.unsqueeze(1) * gradient).reshape(shape).sum(dim=2)
    if getattr(layer, "bias", None) is not None:
        gradients["bias"] = gradient.reshape(shape).sum(dim=2)
    return gradients


def _positions(tensor: Tensor, leading: int) -> Tensor:
    """View ``(*leading, ..., features)`` as ``(*leading, 1 group, S, features)``."""
    return tensor.reshape(*tensor.shape[:leading], 1, -1, tensor.shape[-1])


def _channels(gradient: Tensor, groups: int) -> Tensor:
    """View ``(B, C, o, *pixels)`` as ``(B, C, G, S, o / G)``."""
    return gradient.reshape(*gradient.shape[:2], groups, gradient.shape[2] // groups, -1).transpose(3, 4)
