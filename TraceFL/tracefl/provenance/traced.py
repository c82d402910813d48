"""What of a model is traced: layers by a rule of their kind, and all other parameters by automatic differentiation.

A rule (layers.py) holds where a layer does what its class does and nothing else uses its parameters. Anything else is
differentiated (differentiation.py): bare parameters, such as class tokens; layers of a kind without a rule, with hooks
or with a ``forward`` of their own; attention and recurrent layers; parametrized ones. That is as exact, and slower,
since it takes one input at a time.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear
from torch.nn.utils import parametrize

from tracefl.common.names import did_you_mean
from tracefl.errors import LayerNotTraceableError
from tracefl.provenance.layers import gradient_rule, kind_option, traced_tensors

STATISTICS = ("running_mean", "running_var")


@dataclass(frozen=True)
class Traced:
    """The traced parts of a model.

    Attributes:
        layers: Those with a rule, by name.
        differentiated: The other layers, by name: their parameters, by their names in the model. A parameter that is
            used in several places stands under the first.
        statistics: Of the latter, those whose running statistics are traced too: BatchNorm's kinds.
        names: All of them, in the order of ``named_modules()``.
        left_out: Layers with parameters of a kind that is traced only on request, by name.
    """

    layers: Mapping[str, nn.Module]
    differentiated: Mapping[str, Mapping[str, nn.Parameter]]
    statistics: Mapping[str, nn.Module]
    names: tuple[str, ...]
    left_out: Mapping[str, nn.Module]

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """Return each layer's traced parameters and buffers, by their names in the model."""
        found: dict[str, dict[str, Tensor]] = {}
        for name in self.names:
            if name in self.layers:
                layer = self.layers[name]
                found[name] = {join(name, tensor): getattr(layer, tensor) for tensor in traced_tensors(layer)}
            else:
                found[name] = dict(self.differentiated[name])
                if name in self.statistics:
                    found[name] |= {join(name, kept): getattr(self.statistics[name], kept) for kept in STATISTICS}
        return found


def trace(
    model: nn.Module, layers: Sequence[str] | None, also: Collection[str] = (), without_rule: Collection[str] = ()
) -> Traced:
    """Return what of a model is traced.

    Args:
        model: The global model.
        layers: Names as in ``named_modules()``; a name stands for everything at or below it. None for all.
        also: Kinds of layer that are traced only on request, see ``layers.OPTIONS``.
        without_rule: Names of layers whose rule does not hold in this model.

    Raises:
        LayerNotTraceableError: A name does not exist, or nothing at or below it can be traced.
    """
    modules = dict(model.named_modules())
    parameters = _parameters_by_layer(model)
    by_rule: dict[str, nn.Module] = {}
    others: list[str] = []
    left_out: dict[str, nn.Module] = {}
    for name, module in modules.items():
        if not _is_below(name, layers) or not (name in parameters or traced_tensors(module)):
            continue
        option = kind_option(module)
        if option is not None and option not in also:
            left_out[name] = module
        elif name not in without_rule and _does_as_its_kind(module) and gradient_rule(module) is not None:
            by_rule[name] = module
        elif name in parameters:
            others.append(name)
    _move_shared(by_rule, others, parameters)
    if layers is not None:
        _refuse_empty(layers, {*by_rule, *others}, modules)
    seen: set[nn.Parameter] = set()
    differentiated = {}
    for name in sorted(others, key=list(modules).index):
        differentiated[name] = {full: p for full, p in parameters[name].items() if p not in seen}
        seen |= set(parameters[name].values())
    statistics = {name: modules[name] for name in differentiated if _keeps_statistics(modules[name])}
    names = tuple(name for name in modules if name in by_rule or name in differentiated)
    return Traced(by_rule, differentiated, statistics, names, left_out)


def join(layer_name: str, tensor: str) -> str:
    """Return the name in the model of a layer's tensor."""
    return f"{layer_name}.{tensor}" if layer_name else tensor


def _parameters_by_layer(model: nn.Module) -> dict[str, dict[str, nn.Parameter]]:
    """Return each layer's own parameters of floating-point numbers, by their names in the model.

    Those that a parametrization, such as weight normalisation, makes the layer's weights of are the layer's.
    """
    found: dict[str, dict[str, nn.Parameter]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if parameter.is_floating_point():
            within = f".{name}".split(".parametrizations.")[0] if ".parametrizations." in f".{name}" else ""
            layer = within[1:] if within or ".parametrizations." in f".{name}" else name.rpartition(".")[0]
            found.setdefault(layer, {})[name] = parameter
    return found


def _is_below(name: str, layers: Sequence[str] | None) -> bool:
    return layers is None or any(not top or name == top or name.startswith(f"{top}.") for top in layers)


def _does_as_its_kind(module: nn.Module) -> bool:
    """Return whether nothing that was set on this one module changes what it computes, and it is called at all."""
    if isinstance(module, NonDynamicallyQuantizableLinear):  # nn.MultiheadAttention takes its weights
        return False
    changed = "forward" in vars(module) or module._forward_hooks or module._forward_pre_hooks
    return not changed and not parametrize.is_parametrized(module)


def _keeps_statistics(module: nn.Module) -> bool:
    """Return whether the gradients of a layer's running statistics follow from those of its weight and bias."""
    return (
        isinstance(module, nn.modules.batchnorm._BatchNorm)
        and module.running_mean is not None
        and module.weight is not None
        and not parametrize.is_parametrized(module)
    )


def _move_shared(
    by_rule: dict[str, nn.Module], others: list[str], parameters: Mapping[str, Mapping[str, nn.Parameter]]
) -> None:
    """Differentiate a layer that shares a parameter with one that is differentiated: that finds all of its uses."""
    moved = True
    while moved:
        held = {parameter for name in others for parameter in parameters[name].values()}
        shared = [name for name in by_rule if not held.isdisjoint(parameters.get(name, {}).values())]
        others += shared
        for name in shared:
            del by_rule[name]
        moved = bool(shared)


def _refuse_empty(layers: Sequence[str], found: Collection[str], modules: Mapping[str, nn.Module]) -> None:
    for top in layers:
        if top not in modules:
            raise LayerNotTraceableError(
                f"layer {top!r} does not exist in the model; name layers as in named_modules() "
                f"(provenance.layers){did_you_mean(top, modules)}"
            )
        if not any(_is_below(name, [top]) for name in found):
            kind = type(modules[top]).__name__
            option = kind_option(modules[top])
            ask = f"; also=[{option}] would trace it" if option else ""
            raise LayerNotTraceableError(
                f"layer {top!r} is a {kind}, of which nothing is traced; leave it out of provenance.layers{ask}"
            )
