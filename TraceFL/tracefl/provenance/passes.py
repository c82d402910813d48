"""The passes of an attribution: the model forward and backward, batch by batch, and the clients' weights with each.

An attribution begins with what is usually true: rows are inputs, layers do what their kind does. Where that turns out
wrong, it begins again in another way (``Way``): slower, and right.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointError

from tracefl.errors import CheckError, LayerNotTraceableError, ModelMismatchError, TraceFLError
from tracefl.provenance.backward import gradients, pieces, products, some_targets
from tracefl.provenance.capture import ActivationsTooLargeError, LayerCalls, RuleDoesNotHoldError, run_forward
from tracefl.provenance.checks import (
    Alone,
    difference_alone,
    differentiate_alone,
    is_close,
    same_logits,
    same_rows,
    without_neighbours,
)
from tracefl.provenance.compute import Compute
from tracefl.provenance.differentiation import differentiated_products
from tracefl.provenance.inputs import Batch, forward
from tracefl.provenance.record import ClientId
from tracefl.provenance.sources import Clients, Weights
from tracefl.provenance.targets import Target, target_values
from tracefl.provenance.traced import Traced, trace
from tracefl.provenance.wrong_rules import wrong_rules

_FACTORS: dict[str, torch.dtype | None] = {"float32": None, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Question:
    """What is asked of a model, which is frozen and in evaluation mode on ``place``; see ``attribute``."""

    model: nn.Module
    clients: Mapping[ClientId, Weights]
    targets: Sequence[Target]
    classes: Sequence[Tensor | None]
    layer_decay: float
    reference: Weights | None
    base: Weights | None
    steps: Mapping[str, float]
    layers: Sequence[str] | None
    also: Sequence[str]
    by_layer: bool
    compute: Compute
    check: bool
    place: torch.device


@dataclass(frozen=True)
class Way:
    """How a question is answered.

    Attributes:
        batch: The inputs.
        without_rule: Layers whose rule does not hold in the model.
    """

    batch: Batch
    without_rule: frozenset[str] = frozenset()


class AnotherWayError(Exception):
    """The question must be answered in another way, from the beginning."""

    def __init__(self, way: Way) -> None:
        super().__init__(way)
        self.way = way


@dataclass(frozen=True)
class Found:
    """What an attribution has found.

    Attributes:
        parts: For each target ``(B, K, C, L)`` float64, L the traced layers, or 1 for their sum.
        predicted: ``(B,)`` int64.
        dtype: Of the logits.
        traced: What was traced.
        untraced: An input's gradients of the parameters that were not, by name; None where nothing was checked.
        traced_change: The number of a client, and what that input's contribution of it would be without factors by
            layer; None where nothing was checked.
    """

    parts: Sequence[Tensor]
    predicted: Tensor
    dtype: torch.dtype
    traced: Traced
    untraced: Mapping[str, Tensor] | None
    traced_change: tuple[int, float] | None


def answer(ask: Question, batch: Batch) -> Found:
    """Return the contributions to all inputs and targets.

    Raises:
        CheckError: The result does not hold, in whatever way it is found.
        ModelMismatchError: As ``attribute``.
        LayerNotTraceableError: As ``attribute``.
    """
    way = Way(batch)
    while True:
        try:
            return _Passes(ask, way).run()
        except AnotherWayError as other:
            way = other.way


class _Passes:
    """One attempt to answer, in one way."""

    def __init__(self, ask: Question, way: Way) -> None:
        self._ask, self._way = ask, way
        everything = dict(ask.model.named_modules()) if way.batch.whole else way.without_rule
        self._traced = trace(ask.model, ask.layers, ask.also, everything)
        self._clients = staged_clients(ask, self._traced)
        self._draw = torch.Generator().manual_seed(0)
        self._untraced: Mapping[str, Tensor] | None = None
        self._change: tuple[int, float] | None = None
        self._checked_order = False

    def run(self) -> Found:
        ask, batch, traced = self._ask, self._way.batch, self._traced
        half = ask.compute.memory_budget // 2
        others: list[dict[str, Tensor]] = [{} for _ in ask.targets]
        if traced.differentiated:
            with self._taken_apart():
                arguments = (ask.model, batch, traced, self._clients, ask.targets, ask.classes, half)
                others = differentiated_products(*arguments, ask.compute.backward_batch_size)
        parts: list[list[Tensor]] = [[] for _ in ask.targets]
        predicted = []
        start, size = 0, 1 if batch.alone else min(ask.compute.backward_batch_size, batch.count)
        size = batch.count if batch.whole else size
        while start < batch.count:
            stop = min(start + size, batch.count)
            order = self._by_mean(start, stop)
            try:
                logits, calls = self._forward(start, stop, half if stop - start > 1 else None, order)
            except ActivationsTooLargeError:
                size = (stop - start + 1) // 2
                continue
            for number in range(len(ask.targets)):
                rows = {name: product[start:stop] for name, product in others[number].items()}
                parts[number].append(self._contributions(logits, calls, number, start, rows, half))
            if ask.check:
                self._check(logits, start, int(order[0]), calls, [of_target[-1] for of_target in parts], others)
            predicted.append(logits.detach().argmax(dim=1).cpu())
            start = stop
        found = [torch.cat(of_target).cpu() for of_target in parts]  # (B, C, K, L)
        by_client = [of_target.transpose(1, 2) for of_target in found]
        return Found(by_client, torch.cat(predicted), logits.dtype, traced, self._untraced, self._change)

    def _forward(self, start: int, stop: int, limit: int | None, order: Tensor) -> tuple[Tensor, dict[str, LayerCalls]]:
        """Run some inputs, and see that the rows of every layer with a rule are the inputs."""
        ask, way, count = self._ask, self._way, stop - start
        inputs = way.batch.part(start, stop, ask.place)
        try:
            logits, calls = run_forward(ask.model, inputs, count, self._traced.layers, limit)
        except RuleDoesNotHoldError as error:
            raise AnotherWayError(replace(way, without_rule=way.without_rule | {*error.layers})) from error
        if len(logits) != count:
            raise ValueError(
                f"the model gives {len(logits)} rows of logits for {count} inputs: the first dimension of what it is "
                "given must be the batch; of a single input, unsqueeze(0) makes a batch of one"
            )
        if not way.batch.whole and count > 1 and not self._rows_are_inputs(calls, logits.detach(), start, order):
            raise self._one_at_a_time(start, logits.detach())
        if not self._checked_order:
            self._checked_order = True
            self._differentiate_uncalled(calls)
        return logits, calls

    def _rows_are_inputs(self, calls: Mapping[str, LayerCalls], logits: Tensor, start: int, order: Tensor) -> bool:
        """Tell whether every layer's first dimension is the batch's, and in its order.

        The last two of ``order``, which is that of ``_by_mean``, must give their rows when they are run the later one
        first: a model that sorts its batch does not give them.
        """
        count = len(logits)
        if any(t.ndim < 2 or len(t) != count for call in calls.values() for t in (*call.inputs, *call.outputs)):
            return False
        if not self._ask.check:
            return self._checked_order or self._alone_has_one_row(calls, count)
        rows = order[-2:].sort(descending=True).values
        some = self._way.batch.take(start + rows).part(0, len(rows), self._ask.place)
        with self._taken_apart():
            found, again = run_forward(self._ask.model, some, len(rows), self._traced.layers, graph=False)
        if not same_logits(found, logits[rows.to(logits.device)], logits.dtype) or again.keys() != calls.keys():
            return False
        return all(
            same_rows(seen, first, rows)
            for name, call in again.items()
            for seen, first in zip(call.inputs, calls[name].inputs, strict=False)
        ) and all(len(call.inputs) == len(calls[name].inputs) for name, call in again.items())

    def _by_mean(self, start: int, stop: int) -> Tensor:
        """Order some inputs, ``(b,)``, by the mean of their entries, the least or the largest first as it is drawn.

        The first is run alone and the last two together. So a model that decides by what its inputs are together, such
        as by their mean, has inputs of both ends to decide otherwise for.
        """
        order = self._way.batch.means(start, stop).argsort(stable=True)
        return order.flip(0) if self._drawn(2) else order

    def _alone_has_one_row(self, calls: Mapping[str, LayerCalls], count: int) -> bool:
        """Tell by a single input whether another dimension of the same size is the batch's."""
        if not any(count in t.shape[1:] for call in calls.values() for t in (*call.inputs, *call.outputs)):
            return True
        one = self._way.batch.part(0, 1, self._ask.place)
        _, alone = run_forward(self._ask.model, one, 1, self._traced.layers, graph=False)
        return all(len(t) == 1 for call in alone.values() for t in (*call.inputs, *call.outputs))

    def _one_at_a_time(self, start: int, logits: Tensor) -> AnotherWayError:
        """Return the way for inputs whose rows are not a batch's: alone, or all at once where they cannot be alone."""
        way = self._way
        with self._taken_apart():
            one = forward(self._ask.model, way.batch.part(start, start + 1, self._ask.place))
        batch = without_neighbours(way.batch, one, logits[:1], logits.dtype)
        return AnotherWayError(replace(way, batch=replace(batch, alone=not batch.whole)))

    @contextmanager
    def _taken_apart(self) -> Iterator[None]:
        """Ask all inputs at once where the model cannot be asked some of them, such as offsets into what all share."""
        batch = self._way.batch
        try:
            yield
        except (AnotherWayError, TraceFLError):
            raise
        except (RuntimeError, IndexError, ValueError, TypeError) as error:
            if batch.count == 1 or batch.whole:
                raise
            raise AnotherWayError(Way(replace(batch, whole=True))) from error

    def _differentiate_uncalled(self, calls: Mapping[str, LayerCalls]) -> None:
        """Differentiate layers that the model uses without calling them, such as by a function of their weights."""
        uncalled = [name for name in self._traced.layers if name not in calls]
        if uncalled:
            alone = self._alone(0, 0, 0)
            used = {name for name in uncalled if name in alone.gradients}
            if used:
                raise AnotherWayError(replace(self._way, without_rule=self._way.without_rule | used))

    def _factors(self, calls: Mapping[str, LayerCalls], others: Mapping[str, Tensor]) -> dict[str, float]:
        """Return each layer's factor: a layer further from the output counts less, where one is called or reached."""
        order = [name for name in self._traced.names if name in calls or name in others]
        return {name: self._ask.layer_decay ** (len(order) - 1 - place) for place, name in enumerate(order)}

    @torch.enable_grad()
    def _contributions(
        self,
        logits: Tensor,
        calls: Mapping[str, LayerCalls],
        number: int,
        start: int,
        others: Mapping[str, Tensor],
        limit: int,
    ) -> Tensor:
        """Return the ``(B, C, K, L)`` contributions to one target of some inputs."""
        ask, traced = self._ask, self._traced
        values = target_values(logits, self._target(number, start, start + len(logits)))
        if not values.requires_grad and not others:
            raise LayerNotTraceableError(
                "the logits do not depend on any traced layer: the model detaches them, or every layer named in "
                "provenance.layers is unused"
            )
        factors = self._factors(calls, others)
        single = len(values) == 1 and not self._way.batch.whole
        found = []
        for some, more in some_targets(values, calls, limit):
            try:
                grads = gradients(some, calls, keep=more or number < len(ask.targets) - 1)
            except CheckpointError as error:  # what is run again is run without the hooks that began its graph
                raise AnotherWayError(replace(self._way, without_rule=frozenset(traced.layers))) from error
            named = pieces(grads, calls, traced.layers, factors, single)
            names = traced.names if ask.by_layer else None
            found.append(
                products(named, self._clients, _FACTORS[ask.compute.precision], names, (len(some), some.shape[1]))
            )
        total = torch.cat(found, dim=1)
        for name, product in others.items():
            total[..., traced.names.index(name) if ask.by_layer else 0] += factors[name] * product
        return total

    def _target(self, number: int, start: int, stop: int) -> Target:
        classes = self._ask.classes[number]
        return self._ask.targets[number] if classes is None else classes[start:stop]

    def _alone(self, i: int, number: int, column: int) -> Alone:
        ask = self._ask
        target = self._target(number, i, i + 1)
        untraced = bool(self._traced.left_out) and self._change is None
        return differentiate_alone(ask.model, self._way.batch, i, target, column, self._traced, ask.place, untraced)

    def _check(
        self,
        logits: Tensor,
        start: int,
        row: int,
        calls: Mapping[str, LayerCalls],
        parts: Sequence[Tensor],
        others: Sequence[Mapping[str, Tensor]],
    ) -> None:
        """Compare a contribution of one of these inputs, to a client drawn at random, with its derivative alone."""
        way, traced = self._way, self._traced
        number = self._drawn(len(parts))
        column, k = self._drawn(parts[number].shape[1]), self._drawn(len(self._clients))
        with self._taken_apart():
            alone = self._alone(start + row, number, column)
        if not same_logits(alone.logits, logits[row : row + 1].detach(), logits.dtype):
            if len(logits) > 1 and not way.batch.whole:
                raise self._one_at_a_time(start, logits.detach())
            raise CheckError(
                "the model answers differently when asked the same input twice; make it deterministic in evaluation"
            )
        decays, wanted = self._ask.layer_decay != 1, bool(traced.left_out) and self._change is None
        factors = self._factors(calls, others[number])
        expected, scale = difference_alone(alone, factors, traced, self._clients, k)
        if wanted:
            self._untraced = alone.untraced
            plain = difference_alone(alone, {}, traced, self._clients, k)[0] if decays else expected
            self._change = k, plain
        if decays and _shares_tensors(traced):
            return  # a shared tensor's uses have different factors, which its one derivative does not tell apart
        found = float(parts[number][row, column, k].sum())
        coarse = self._ask.compute.precision != "float32"
        if is_close(found, expected, scale, logits.dtype, coarse):
            return
        target = self._target(number, start + row, start + row + 1)
        wrong = wrong_rules(self._ask.model, way.batch, start + row, target, column, alone, traced, self._ask.place)
        if wrong:
            raise AnotherWayError(replace(way, without_rule=way.without_rule | wrong))
        if len(logits) > 1 and not way.batch.whole:
            raise self._one_at_a_time(start, logits.detach())
        raise CheckError(
            f"the contribution of client {self._clients.ids[k]} to input {start + row} adds up to {found:.6g}, and the "
            f"model's derivative in that client's direction is {expected:.6g}: the model does something that cannot be "
            "traced; check=False gives the contributions all the same"
        )

    def _drawn(self, count: int) -> int:
        return int(torch.randint(count, (1,), generator=self._draw))


def _shares_tensors(traced: Traced) -> bool:
    tensors = [tensor for its in traced.tensors().values() for tensor in its.values()]
    return len(set(tensors)) < len(tensors)


def staged_clients(ask: Question, traced: Traced) -> Clients:
    """Check the clients against the model's traced tensors, before anything is computed.

    Raises:
        ModelMismatchError: A client lacks one, or has it in another shape; or nothing of the model is traced.
    """
    center = {
        name: tensor.detach().to(torch.promote_types(tensor.dtype, torch.float32))
        for tensors in traced.tensors().values()
        for name, tensor in tensors.items()
    }
    if not center:
        raise ModelMismatchError(f"{type(ask.model).__name__} has no layer that can be traced")
    names: dict[Tensor, list[str]] = {}
    for name, parameter in ask.model.named_parameters(remove_duplicate=False):
        names.setdefault(parameter, []).append(name)
    aliases = {name: others for others in names.values() if len(others) > 1 for name in others}
    found = Clients(ask.clients, center, ask.reference, ask.base, aliases, ask.place, ask.steps)
    found.check({name: tuple(tensor.shape) for name, tensor in center.items()})
    return found
