"""Per-sample gradients from Opacus's hooks, made to work with common architectures."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from opacus.grad_sample import GradSampleModule
from opacus.utils.module_utils import trainable_modules
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from tracefl.errors import ConfigError, one_line
from tracefl.provenance.inputs import Inputs, forward

# The first layer's input needs no gradient, and Opacus's hook there does not use it.
warnings.filterwarnings("ignore", message="Full backward hook is firing")

# Largest difference between a gradient and the sum of its parts, from rounding, as a fraction of the largest gradient.
_TOLERANCE = 1e-3


@contextmanager
def per_sample_gradients(model: nn.Module) -> Iterator[None]:
    """Make ``backward_of_sum`` store each example's gradient in ``parameter.grad_sample``, ``(B, *parameter shape)``.

    Opacus uses ``torch.func`` for layers for which it has no rule, such as transformers' Conv1D.

    Args:
        model: In training mode. Its hooks and additional attributes are removed afterwards.

    Raises:
        NotImplementedError: A layer has buffers, as BatchNorm does, which makes examples depend on each other.
    """
    hooked = GradSampleModule(model, loss_reduction="sum")
    with ExitStack() as ending:
        ending.callback(hooked.cleanup)
        for handle in _one_row_each(model):
            ending.callback(handle.remove)
        yield


def backward_of_sum(model: nn.Module, inputs: Inputs, labels: Tensor) -> Tensor:
    """Add the gradient of the examples' summed cross-entropy to ``parameter.grad``.

    Args:
        model: Returns logits ``(B, C)``.
        inputs: ``(B, ...)``, or a mapping of such tensors.
        labels: ``(B,)`` int64 classes.

    Returns:
        The summed cross-entropy in nats, a detached scalar.
    """
    with _OutOfPlace():
        logits = forward(model, inputs).float()
    loss = F.cross_entropy(logits, labels, reduction="sum")
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.detach()


def check_per_sample_gradients(model: nn.Module, inputs: Inputs, labels: Tensor) -> None:
    """Check that the model's gradient is the sum of the gradients that Opacus finds for the single examples.

    Args:
        model: Left as it was.
        inputs: ``(B, ...)`` or a mapping of such tensors; two examples are enough.
        labels: ``(B,)`` classes.

    Raises:
        ConfigError: The gradients differ, or Opacus cannot handle the model; the message says why.
    """
    was_training = model.training
    try:
        trouble = _trouble(model, inputs, labels)
    except (NotImplementedError, RuntimeError, ValueError, AttributeError) as error:  # whatever the hooks cannot handle
        trouble = one_line(error)[:200]
    finally:
        model.zero_grad(set_to_none=True)
        model.train(was_training)
    if trouble:
        raise ConfigError(f"privacy=dp_sgd cannot train this model: {trouble}; choose another, or privacy=central")


def _trouble(model: nn.Module, inputs: Inputs, labels: Tensor) -> str | None:
    """Return what is wrong with the model's per-sample gradients, and in which layer; None if they are right."""
    with_buffers = [name for name, module in trainable_modules(model) if next(module.buffers(), None) is not None]
    if with_buffers:
        return f"layer {with_buffers[0]!r} has buffers, in which one example may see another"
    with torch.no_grad():
        model.eval()
        logits = forward(model, inputs)
        with _OutOfPlace():
            if not torch.equal(forward(model, inputs), logits):
                return "it adds to a tensor in place without using what that returns"
    with torch.random.fork_rng(devices=[]), per_sample_gradients(model.train()):
        backward_of_sum(model, inputs, labels)
        parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        largest = max((float(p.grad.abs().max()) for p in parameters.values() if p.grad is not None), default=0.0)
        for name, parameter in parameters.items():
            whole, found = parameter.grad, getattr(parameter, "grad_sample", None)
            if (
                whole is None
                or not isinstance(found, Tensor)
                or len(found) != len(labels)
                or float((found.sum(dim=0) - whole).abs().max()) > _TOLERANCE * largest
            ):
                layer = name.rpartition(".")[0] or type(model).__name__
                return f"layer {layer!r} gives no gradient for each example (parameter {name})"
    return None


def _one_row_each(model: nn.Module) -> list[Any]:
    """Give each example its own row of ids if the model looks up one row for all of them, as for positions."""
    rows = 0

    def count(_: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        nonlocal rows
        rows = len(next(iter((*args, *kwargs.values()))))

    def repeat(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        ids = args[0]
        return (ids.expand(rows, *ids.shape[1:]), *args[1:]) if ids.ndim > 1 and len(ids) == 1 else args

    handles: list[Any] = [model.register_forward_pre_hook(count, with_kwargs=True)]
    # before Opacus's own hooks, which read what the layer was given
    handles += [m.register_forward_pre_hook(repeat) for m in model.modules() if isinstance(m, nn.Embedding)]
    return handles


class _OutOfPlace(TorchFunctionMode):
    """Compute ``relu(x, inplace=True)`` and ``x += y`` out of place, as x may be a hooked layer's output.

    ``check_per_sample_gradients`` ensures that a model does not rely on in-place operations.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if kwargs.get("inplace"):
            kwargs["inplace"] = False
        return (torch.add if func is Tensor.add_ else func)(*args, **kwargs)
