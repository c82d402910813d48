"""Whether a round's model is its clients' average, or the server's step to it: some entries of every tensor tell.

A server that steps may do so with some tensors only, and deploy the plain average of the others, as many do with
BatchNorm's running statistics. Each tensor is taken for the one of both that it is closer to. Where a robust rule made
the model, that is made again by it, whole: whom Krum chooses depends on every entry.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from tracefl.provenance.record import RoundRecord
from tracefl.provenance.robust import aggregated_sizes, not_finite
from tracefl.provenance.sources import NamedWeights

_BLOCKS, _ENTRIES = 4, 256  # of a tensor that are compared: blocks of rows, and entries of each


@dataclass(frozen=True)
class Compared:
    """What a round's model is.

    Attributes:
        steps: By name, the step to the clients' average that each tensor of floating-point numbers takes: the record's,
            or 1 where the average itself is deployed.
        refusal: Why the model is neither, or None.
        compared: How many numbers were compared.
        apart: By how much the model and what it should be differ at most.
    """

    steps: Mapping[str, float]
    refusal: str | None
    compared: int = 0
    apart: float = 0.0


@dataclass(frozen=True)
class _Sums:
    """Of a tensor's compared entries, in float64: what they started from, the clients' average, and sizes."""

    start: Tensor
    average: Tensor
    size: Tensor


def compare(record: RoundRecord) -> Compared:
    """Compare some entries of every tensor of the round's model with the clients' average, and the step to it.

    Args:
        record: The round, as it was read; each client's entries are read once.

    Raises:
        RecordError: The step is not linear.
        ModelMismatchError: A client's weights are not finite.
    """
    if record.aggregation is not None:
        return _compare_aggregated(record)
    draw = torch.Generator().manual_seed(0)
    return _compare(
        record, {name: _places(tensor, draw) for name, tensor in record.made.items() if tensor.is_floating_point()}
    )


def compare_whole(record: RoundRecord, numbers_at_once: int = 1 << 26) -> Compared:
    """Compare every entry of every tensor, as ``compare`` does with some.

    Args:
        record: The round, as it was read.
        numbers_at_once: Entries in memory, of three arrays in float64; the clients are read once for so many.

    Raises:
        RecordError: The step is not linear.
        ModelMismatchError: A client's weights are not finite.
    """
    if record.aggregation is not None:
        return _compare_aggregated(record)
    parts: list[dict[str, _Places | None]] = [{}]
    held = 0
    for name, tensor in record.made.items():
        if tensor.is_floating_point():
            if held and held + tensor.numel() > numbers_at_once:
                parts.append({})
                held = 0
            parts[-1][name] = None
            held += tensor.numel()
    found = [_compare(record, part) for part in parts]
    return Compared(
        {name: step for each in found for name, step in each.steps.items()},
        next((each.refusal for each in found if each.refusal is not None), None),
        sum(each.compared for each in found),
        max(each.apart for each in found),
    )


def _compare(record: RoundRecord, places: Mapping[str, "_Places | None"]) -> Compared:
    """Compare the entries at some places of tensors; None for all."""
    rate, made = record.rate("what takes a client out of the average"), record.made
    sums, eps = _added(record, places)
    rounding = eps * (2 + math.sqrt(len(record.clients))) * max(1.0, rate)
    steps, worst, largest = {}, (1.0, "", 0.0), 0.0
    for name, its in sums.items():
        found = _entries(made, name, places[name]).double()
        apart = {step: (found - (its.start + step * (its.average - its.start))).abs() for step in (rate, 1.0)}
        steps[name] = min(apart, key=lambda step: float(apart[step].square().sum()))  # the record's, where both are it
        beyond = apart[steps[name]] / (rounding * its.size + torch.finfo(torch.float32).tiny)
        beyond = beyond.nan_to_num(nan=math.inf)
        its_apart = apart[steps[name]].nan_to_num(nan=math.inf, posinf=math.inf)
        largest = max(largest, float(its_apart.max()) if len(beyond) else 0.0)
        if len(beyond) and float(beyond.max()) > worst[0]:
            worst = float(beyond.max()), name, float(apart[steps[name]][beyond.argmax()])
    step = "weighted average" if rate == 1 else f"step of {rate:g} to the weighted average"
    refusal = None
    if worst[1]:
        refusal = (
            f"the global model of round {record.server_round} is not the {step} of its clients: {worst[1]!r} differs "
            f"by up to {worst[2]:.3g}. Is a client missing, or are the weights of another round? Where the server "
            "steps, say so by server_step= (its learning rate, or 'nonlinear'); noise and earlier rounds' momentum by "
            "before_noise="
        )
    elif rate not in steps.values() and steps:
        refusal = (
            f"the global model of round {record.server_round} is not the {step} of its clients: it is that average "
            "itself, in every tensor. Leave server_step= out"
        )
    return Compared(steps, refusal, sum(len(its.start) for its in sums.values()), largest)


def _compare_aggregated(record: RoundRecord) -> Compared:
    """Compare every entry with what the round's robust rule makes of its clients."""
    assert record.aggregation is not None
    made = {name: tensor.detach().cpu() for name, tensor in record.made.items() if tensor.is_floating_point()}
    eps = max((torch.finfo(tensor.dtype).eps for tensor in made.values()), default=0.0)
    eps = max(eps, 0.0 if record.clients_dtype is None else torch.finfo(record.clients_dtype).eps)
    largest, refusal, beyond = 0.0, None, 1.0
    sums = max(2.0, len(record.clients) / 2)  # of a mean whose sum is in the weights' own type, as a server may do it
    for name, again, size in aggregated_sizes(record):
        apart = (made[name].double() - again).abs()
        rounding = sums * eps * size + torch.finfo(torch.float32).tiny
        if apart.numel():
            largest = max(largest, float(apart.max()))
            if (worst := float((apart / rounding).nan_to_num(nan=math.inf).max())) > beyond:
                beyond = worst
                refusal = (
                    f"the global model of round {record.server_round} is not what {record.aggregation.rule} makes of "
                    f"its clients: {name!r} differs by up to {float(apart.max()):.3g}. Is a client missing, are the "
                    "rule's numbers others, or were the clients' weights rounded for storage?"
                )
    return Compared(dict.fromkeys(made, 1.0), refusal, sum(map(Tensor.numel, made.values())), largest)


def _added(record: RoundRecord, places: Mapping[str, "_Places | None"]) -> tuple[dict[str, _Sums], float]:
    """Average the clients' entries; also return the rounding of the coarsest type that they were in."""
    eps = max((torch.finfo(record.made[name].dtype).eps for name in places), default=0.0)
    eps = max(eps, 0.0 if record.clients_dtype is None else torch.finfo(record.clients_dtype).eps)
    sums = {}
    for name, some in places.items():
        start = _entries(record.previous_global, name, some).double()
        sums[name] = _Sums(start, torch.zeros_like(start), start.abs())
    for client_id, weights in record.clients.items():
        share = record.client_weights[client_id]
        for name, some in places.items():
            entries = _entries(weights, name, some)
            if not entries.isfinite().all():
                raise not_finite(client_id, name)
            eps = max(eps, torch.finfo(entries.dtype).eps)
            sums[name].average.add_(entries.double(), alpha=share)
            sums[name].size.add_(entries.double().abs(), alpha=share)
    return sums, eps


@dataclass(frozen=True)
class _Places:
    """Some entries of a tensor: blocks of its rows, and the entries of these blocks laid end to end."""

    blocks: tuple[slice, ...]
    within: tuple[Tensor, ...]
    flat: Tensor

    @property
    def count(self) -> int:
        return len(self.flat)


def _places(tensor: Tensor, draw: torch.Generator) -> _Places:
    rows = len(tensor) if tensor.ndim else 1
    if not tensor.numel():
        return _Places((), (), torch.empty(0, dtype=torch.int64))
    size = tensor.numel() // rows
    if tensor.numel() <= _BLOCKS * _ENTRIES:
        every = torch.arange(tensor.numel())
        return _Places((slice(0, rows),), (every,), every)
    length = min(rows, -(-_ENTRIES // size))
    starts = torch.randint(rows - length + 1, (_BLOCKS,), generator=draw).tolist()
    within = tuple(torch.randint(length * size, (_ENTRIES,), generator=draw) for _ in starts)
    flat = torch.cat([start * size + places for start, places in zip(starts, within, strict=True)])
    return _Places(tuple(slice(start, start + length) for start in starts), within, flat)


def _entries(weights: Mapping[str, Tensor], name: str, places: _Places | None) -> Tensor:
    """Return a tensor's entries at some places, None for all, on the CPU; of a file, only their rows are read."""
    if places is None:
        return weights[name].detach().reshape(-1).cpu()
    if isinstance(weights, NamedWeights) and weights.on_disk:
        parts = [
            weights.rows(name, rows).reshape(-1)[within]
            for rows, within in zip(places.blocks, places.within, strict=True)
        ]
        return torch.cat(parts) if parts else torch.empty(0)
    tensor = weights[name].detach()
    return tensor.reshape(-1)[places.flat.to(tensor.device)].cpu()
