"""Each input's gradients of parameters that no rule covers: several inputs at once where the model allows it.

The first input is run alone. The others follow many at a time by ``torch.func.vmap``, for which each is alone too. That
a model does not allow it, because what it does depends on its values, or because it does what torch cannot vectorise,
shows in an error, or in another gradient for the first input; then they are run one by one.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.func import vjp, vmap

from tracefl.provenance.inputs import Batch, Inputs, forward
from tracefl.provenance.targets import Target, target_values, values_of

_SAME = {torch.float64: 1e-9, torch.float32: 1e-4}  # of a gradient's norm
_COARSE = 2e-2


@dataclass(frozen=True)
class InputGradients:
    """The gradients of some inputs that were run at once.

    Attributes:
        count: How many, b.
        of_targets: For each target, by name, ``(b, C, *shape)`` of the parameters that it reaches.
    """

    count: int
    of_targets: Sequence[Mapping[str, Tensor]]


@dataclass(frozen=True)
class Differentiation:
    """What is differentiated by what.

    Attributes:
        model: Frozen, on ``device``.
        batch: The B inputs.
        parameters: Which to differentiate by, by their names in the model.
        targets: What is attributed.
        classes: For each target the inputs' classes, ``(B,)``, or None for a named one.
        device: Where the model is.
    """

    model: nn.Module
    batch: Batch
    parameters: Mapping[str, Tensor]
    targets: Sequence[Target]
    classes: Sequence[Tensor | None]
    device: torch.device

    def forward(self, start: int, stop: int) -> Tensor:
        """Return the logits of some inputs."""
        return forward(self.model, self.batch.part(start, stop, self.device))


@contextmanager
def requiring_grad(tensors: Sequence[Tensor]) -> Iterator[None]:
    """Let some frozen parameters require gradients; recurrent layers, whose fast kernels know none, use slower ones."""
    try:
        for tensor in tensors:
            tensor.requires_grad_(True)
        with torch.enable_grad(), torch.backends.cudnn.flags(enabled=torch.backends.cudnn.enabled and not tensors):
            yield
    finally:
        for tensor in tensors:
            tensor.requires_grad_(False)


def gradients_of(value: Tensor, tensors: Sequence[Tensor], keep: bool) -> list[Tensor | None]:
    """Return the gradients of one number, None where it does not depend on the tensor."""
    if not value.requires_grad:
        return [None] * len(tensors)
    return list(torch.autograd.grad(value, tensors, retain_graph=keep, allow_unused=True))


def gradients_of_inputs(asked: Differentiation, limit_bytes: int, at_once: int) -> Iterator[InputGradients]:
    """Yield the gradients of all inputs, in their order.

    Args:
        asked: What is differentiated.
        limit_bytes: Bytes that the inputs which are run at once may take.
        at_once: How many inputs that may be at most.
    """
    batch, parameters = asked.batch, asked.parameters
    if batch.whole:
        with requiring_grad(list(parameters.values())):
            logits = asked.forward(0, batch.count)
            for i in range(batch.count):
                yield _differentiated(asked, logits[i : i + 1], i, i < batch.count - 1)
        return
    first, held = _first(asked)
    reached = {name: tensor for name, tensor in parameters.items() if any(name in found for found in first.of_targets)}
    start, size = 0, min(at_once, batch.count, limit_bytes // max(held, 1)) if reached else 1
    while size > 1 and start < batch.count:
        found = _vectorised(replace(asked, parameters=reached), slice(start, start + size))
        if found is None or (start == 0 and not _begins_with(found, first)):
            break
        yield found
        start += found.count
    if start == 0:
        yield first
        start = 1
    with requiring_grad(list(parameters.values())):
        for i in range(start, batch.count):
            yield _differentiated(asked, asked.forward(i, i + 1), i, keep=False)


def _first(asked: Differentiation) -> tuple[InputGradients, int]:
    """Differentiate the first input alone; return how many bytes that took, too."""
    weights = {tensor.untyped_storage().data_ptr() for tensor in asked.model.state_dict().values()}
    held: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            held[storage.data_ptr()] = storage.nbytes()
        return tensor

    with requiring_grad(list(asked.parameters.values())):
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            logits = asked.forward(0, 1)
        found = _differentiated(asked, logits, 0, keep=False)
    gradients = sum(g.numel() * g.itemsize for of_target in found.of_targets for g in of_target.values())
    return found, 2 * (sum(held.values()) + gradients)


def _differentiated(asked: Differentiation, logits: Tensor, i: int, keep: bool) -> InputGradients:
    """Differentiate the ``(1, C)`` logits of input ``i``; ``keep`` whether their graph is needed again."""
    of_targets = []
    for number, (target, own) in enumerate(zip(asked.targets, asked.classes, strict=True)):
        values = target_values(logits, target if own is None else own[i : i + 1])[0].unbind()
        more = keep or number < len(asked.targets) - 1
        by_value = [
            gradients_of(value, list(asked.parameters.values()), more or c < len(values) - 1)
            for c, value in enumerate(values)
        ]
        found = {}
        for name, *gradients in zip(asked.parameters, *by_value, strict=True):
            some = next((g for g in gradients if g is not None), None)
            if some is not None:
                there = [torch.zeros_like(some) if g is None else g for g in gradients]
                found[name] = _at_least_float32(torch.stack(there).unsqueeze(0))
        of_targets.append(found)
    return InputGradients(1, of_targets)


def _vectorised(asked: Differentiation, some: slice) -> InputGradients | None:
    """Differentiate some inputs at once; None where the model does what cannot be vectorised."""
    model, batch, parameters, device = asked.model, asked.batch, asked.parameters, asked.device
    inputs = batch.part(some.start, some.stop, device)
    own = [None if of_target is None else of_target[some].to(device) for of_target in asked.classes]
    weights = {name: tensor.detach() for name, tensor in parameters.items()}
    names = {parameter: name for name, parameter in parameters.items()}
    places = [(m, n, names[p]) for m in model.modules() for n, p in m._parameters.items() if p in names]

    def gradients(one: Inputs, its_classes: Sequence[Tensor | None]) -> list[dict[str, Tensor]]:
        def values(weights: Mapping[str, Tensor]) -> list[Tensor]:
            alone = batch.of_rows(lambda tensor: tensor.unsqueeze(0), one)
            for module, name, parameter in places:
                module._parameters[name] = weights[parameter]  # type: ignore[assignment]
            logits = forward(model, alone)
            pairs = zip(asked.targets, its_classes, strict=True)
            return [values_of(logits, t, None if c is None else c.unsqueeze(0))[0] for t, c in pairs]

        found, pull = vjp(values, weights)[:2]
        by_target = []
        for number, of_target in enumerate(found):
            rows: list[dict[str, Tensor]] = []
            for c in range(len(of_target)):
                direction = [torch.zeros_like(v) for v in found]
                direction[number][c] = 1
                rows.append(pull(direction)[0])
            by_target.append({name: torch.stack([row[name] for row in rows]) for name in weights})
        return by_target

    axes = batch.axes(), [None if of_target is None else 0 for of_target in own]
    try:
        with _restored(model), warnings.catch_warnings(), _plain_kernels():
            warnings.filterwarnings("ignore", message="There is a performance drop")
            found = vmap(gradients, in_dims=axes)(inputs, own)
    except (RuntimeError, ValueError, TypeError, IndexError, NotImplementedError, AttributeError, AssertionError):
        return None  # run alone, the same error comes again if it is the model's own
    count = min(some.stop, batch.count) - some.start
    return InputGradients(count, [{n: _at_least_float32(g) for n, g in of_target.items()} for of_target in found])


@contextmanager
def _plain_kernels() -> Iterator[None]:
    with torch.no_grad(), torch.backends.cudnn.flags(enabled=False):
        yield


@contextmanager
def _restored(model: nn.Module) -> Iterator[None]:
    """Give every module its own tensors again, whatever was put in their place, or was kept of the inputs."""
    kept = [(m, dict(vars(m)), dict(m._parameters), dict(m._buffers)) for m in model.modules()]
    try:
        yield
    finally:
        for module, attributes, parameters, buffers in kept:
            vars(module).clear()
            vars(module).update(attributes)
            module._parameters.update(parameters)
            module._buffers.update(buffers)


def _begins_with(found: InputGradients, first: InputGradients) -> bool:
    """Return whether the first of some inputs has the gradients that it has alone, up to rounding."""
    for of_target, alone in zip(found.of_targets, first.of_targets, strict=True):
        for name, gradient in of_target.items():
            expected = alone.get(name)
            difference = gradient[:1] if expected is None else gradient[:1] - expected
            size = 0.0 if expected is None else float(expected.norm())
            if not float(difference.norm()) <= _SAME.get(gradient.dtype, _COARSE) * size:
                return False
    return True


def _at_least_float32(gradient: Tensor) -> Tensor:
    return gradient.to(torch.promote_types(gradient.dtype, torch.float32))
