"""What the prediction would be without a client: its exact removal from the average, without training.

With FedAvg, W = sum_k p_k W_k, so the average of the other clients is W_-k = (W - p_k W_k) / (1 - p_k); where the
server takes a step to the average, each tensor takes the same step to that of the others, and where it follows a robust
rule, that is followed again (record.py). By this test, a client is responsible to the extent that its removal lowers
the predicted class's centered logit (its logit less the mean of all logits).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from tracefl.errors import CheckError, ModelMismatchError
from tracefl.provenance.capture import frozen_eval
from tracefl.provenance.checks import same_logits, without_neighbours
from tracefl.provenance.compute import Compute
from tracefl.provenance.given import tensors_of
from tracefl.provenance.inputs import Batch, Inputs, forward, plain_model, read_batch
from tracefl.provenance.modes import in_any_mode
from tracefl.provenance.reading import ReadRound, aligned, check_average, read_round, why_not_finite
from tracefl.provenance.record import ClientId, RoundRecord
from tracefl.provenance.robust import aggregated, tensor_of

_PROBABILITIES_WITHIN = 5e-3  # of 1, which those of half precision miss, too
_BLOCK = 2**17  # weights converted to float64 at once: their 1 MiB stays in the processor's cache


@in_any_mode
def weights_without(
    record: RoundRecord,
    client_id: ClientId,
    average: Mapping[str, Tensor] | None = None,
    out: Mapping[str, Tensor] | None = None,
    *,
    check: bool = True,
) -> dict[str, Tensor]:
    """Return the average of the round's other clients, buffers included; integer buffers stay as in the average.

    Where the server takes a step to the average, each tensor takes the same step to this one.

    Privacy noise that was added to the average is added to this one too, because it belongs to no client.

    Args:
        record: The round.
        client_id: The client that is left out.
        average: ``float64_average(record)`` if the caller has it already, and has checked the record; computed
            otherwise.
        out: An earlier result, to be overwritten.
        check: Whether to see that the record is an average, see ``reading.check_average``.

    Raises:
        ValueError: The client is the round's only one.
        RecordError: The record is no average, or its server's step is not linear.
        ModelMismatchError: A client's names or shapes are not the global model's.
    """
    record = read_round(None, record)
    record.rate("the model without a client")
    if check and average is None:
        check_average(record)
    if record.aggregation is not None:
        return _aggregated_without(record, (client_id,))
    p = record.client_weights[client_id]
    if not p < 1:
        raise ValueError(f"client {client_id!r} is the whole average (weight {p}): there is no model without it")
    return left_out(record, (client_id,), float64_average(record) if average is None else average, out)


def left_out(
    record: ReadRound,
    client_ids: Sequence[ClientId],
    average: Mapping[str, Tensor],
    out: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Return what ``weights_without`` does, without several clients at once, unchecked.

    Args:
        record: The round; others remain in it.
        client_ids: The clients that are left out.
        average: ``float64_average(record)``.
        out: An earlier result, to be overwritten.
    """
    if record.aggregation is not None:
        return _aggregated_without(record, client_ids)
    steps = record.steps("the model without a client")
    shares = [record.client_weights[client_id] for client_id in client_ids]
    owns = [record.clients[client_id] for client_id in client_ids]  # once: each access reads a stored client's file
    without = dict(record.global_weights)
    for name, total in average.items():
        like = record.global_weights[name]
        rest = torch.empty(like.shape, dtype=like.dtype, device=like.device) if out is None else out[name]
        rate = steps[name]
        begin = total if rate == 1 else record.previous_global[name]
        for others, everyone, start, *left in blocks(rest, total, begin, *(own[name] for own in owns)):
            found = everyone
            for p, part in zip(shares, left, strict=True):
                found = part.to(found).mul(-p).add_(found)
            found.div_(1 - sum(shares))
            if rate != 1:
                found.sub_(start.to(found)).mul_(rate).add_(start.to(found))
            others.copy_(found)
        if record.before_noise is not None:
            rest.add_(like - record.before_noise[name])
        without[name] = rest
    return without


def _aggregated_without(record: ReadRound, client_ids: Sequence[ClientId]) -> dict[str, Tensor]:
    """Return the model that the round's rule makes of its other clients, in the model's types."""
    without = dict(record.global_weights)
    for name, made in aggregated(record, client_ids).items():
        like = record.global_weights[name]
        without[name] = made.to(like)
        if record.before_noise is not None:
            without[name] += like - record.before_noise[name]
    return without


def float64_average(record: RoundRecord) -> dict[str, Tensor]:
    """Return sum_k p_k W_k of the floating-point weights and buffers, or what the round's robust rule makes of them.

    In float64, because a client with most of the weight, taken out of a float32 average, leaves little of the others
    but rounding, and a running variance can turn negative.

    Raises:
        ModelMismatchError: A client lacks one of them, or has it in another shape.
    """
    if record.aggregation is not None:
        return aggregated(record)
    floating = {name: w for name, w in record.global_weights.items() if w.is_floating_point()}
    total = {name: torch.zeros(w.shape, dtype=torch.float64, device=w.device) for name, w in floating.items()}
    for client_id, weights in record.clients.items():
        for name, like in floating.items():
            own = tensor_of(client_id, weights, name, tuple(like.shape))
            for sums, part in blocks(total[name], own):
                sums.add_(part.to(sums).mul(record.client_weights[client_id]))
    return total


def blocks(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Yield the same few entries of each tensor at a time; those of contiguous tensors are writable."""
    flat = [tensor.reshape(-1) for tensor in tensors]
    for begin in range(0, flat[0].numel(), _BLOCK):
        yield tuple(part[begin : begin + _BLOCK] for part in flat)


@in_any_mode
def logits_without(
    global_model: nn.Module,
    record: RoundRecord,
    inputs: Inputs,
    client_ids: Sequence[ClientId] | None = None,
    *,
    check: bool = True,
    compute: Compute = Compute(),
) -> tuple[Tensor, Tensor]:
    """Return the logits with all clients, and with each of some clients left out.

    Args:
        global_model: The architecture; its own weights are not used and not changed.
        record: The round.
        inputs: ``(B, ...)`` or a mapping of such tensors.
        client_ids: The R clients to leave out, one at a time; None for all.
        check: Whether the answer checks itself: an input's logits alone are those in its batch, and the record is an
            average.
        compute: The device, and the inputs in one forward.

    Returns:
        ``(B, C)`` and ``(R, B, C)``, float64 on the CPU. R + 1 forward passes.

    Raises:
        ValueError: A client that is the whole average is to be left out, or inputs are not finite.
        ModelMismatchError: A model gives logits that are not finite, or names or shapes are not the model's.
        RecordError: The record is no average, see ``RoundRecord``.
    """
    batch_size, model = compute.forward_batch_size, plain_model(global_model)
    record = read_round(model, record)
    with frozen_eval(model, compute.device) as place:
        with_all, batch = logits_with_all(model, record, inputs, batch_size, place, check)  # (B, C)
        found = []
        for client_id, without in without_each(model, record, batch, client_ids, batch_size, place, check):
            if not without.isfinite().all():
                raise ModelMismatchError(f"the model without client {client_id!r} gives logits that are not finite")
            found.append(without.cpu())
    return with_all.cpu(), torch.stack(found) if found else torch.empty(0, *with_all.shape)


def without_each(
    model: nn.Module,
    record: ReadRound,
    batch: Batch,
    client_ids: Sequence[ClientId] | None,
    batch_size: int,
    device: torch.device,
    check: bool,
) -> Iterator[tuple[ClientId, Tensor]]:
    """Yield each client and the ``(B, C)`` float64 logits of the model without it, on ``device``.

    Reads every client once for the average, then those that are left out once more; one is held at a time. Of a round
    that a robust rule aggregated, all of them are read for each, and held.

    Args:
        model: The architecture, on ``device`` and in evaluation mode, see ``frozen_eval``.
        record: The round.
        batch: The inputs.
        client_ids: The clients to leave out; None for all.
        batch_size: Inputs in one forward.
        device: Where to compute.
        check: Whether to see that the record is an average.

    Raises:
        ValueError: A client that is the whole average is to be left out.
        RecordError: The record is no average.
    """
    wanted = tuple(record.clients) if client_ids is None else tuple(client_ids)
    if wanted and check:
        check_average(record)
    average = float64_average(record) if wanted and record.aggregation is None else {}
    weights = None
    for client_id in wanted:
        weights = weights_without(record, client_id, average, out=weights)
        yield client_id, logits_under(model, weights, batch, batch_size, device)


@in_any_mode
def removal_effects(
    global_model: nn.Module,
    record: RoundRecord,
    inputs: Inputs,
    *,
    check: bool = True,
    compute: Compute = Compute(),
) -> Tensor:
    """Return by how much each client's removal lowers the centered logit of the predicted class.

    Args:
        global_model: The architecture; its own weights are not used and not changed.
        record: The round, of at least two clients.
        inputs: ``(B, ...)`` or a mapping of such tensors.
        check: As in ``logits_without``.
        compute: The device, and the inputs in one forward.

    Returns:
        ``(B, K)`` in logits, float64 on the CPU, columns in the order of ``record.clients``; positive where the
        client supports the prediction. K + 1 forward passes.

    Raises:
        ValueError: As ``logits_without``.
        ModelMismatchError: As ``logits_without``.
        RecordError: As ``logits_without``.
    """
    logits, without = logits_without(global_model, record, inputs, check=check, compute=compute)
    return effects_of(logits, without, logits.argmax(dim=1)).t()


def effects_of(logits: Tensor, without: Tensor, classes: Tensor) -> Tensor:
    """Return by how much each removal lowers the centered logit of the inputs' classes, ``(R, B)``.

    Args:
        logits: ``(B, C)`` with all clients.
        without: ``(R, B, C)`` with one client left out each.
        classes: ``(B,)`` int64.
    """
    with_all = centered_logit(logits, classes)
    return torch.stack([with_all - centered_logit(left, classes) for left in without])


def centered_logit(logits: Tensor, classes: Tensor) -> Tensor:
    """Return each input's logit of its class less its mean logit, ``(B,)``, from ``(B, C)`` and ``(B,)``."""
    return logits.gather(1, classes.unsqueeze(1)).squeeze(1) - logits.mean(dim=1)


def class_probability(logits: Tensor, classes: Tensor) -> Tensor:
    """Return each input's probability of its class, ``(B,)``, from ``(B, C)`` and ``(B,)``."""
    return logits.softmax(dim=1).gather(1, classes.unsqueeze(1)).squeeze(1)


def logits_notes(model: nn.Module, logits: Tensor) -> list[str]:
    """Return what is to be said of a model's ``(B, C)`` logits: that they look like probabilities, or are coarse."""
    notes = []
    from_one = (logits.double().sum(dim=1) - 1).abs()
    if not bool((logits < 0).any()) and bool((from_one <= _PROBABILITIES_WITHIN).all()):
        notes.append(
            "the model's outputs are from 0 to 1 and add up to 1: if these are probabilities, contributions are to "
            "them, and the probabilities that are shown are a softmax of them; leave the model's last softmax out"
        )
    coarse = {p.dtype for p in model.parameters()} & {torch.bfloat16, torch.float16}
    if coarse:
        names = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in coarse))
        step = max(torch.finfo(dtype).eps for dtype in coarse) * float(logits.abs().max())
        notes.append(
            f"the model's numbers are {names}, which rounds its logits by {step:.1g} or more: effects as small say "
            "nothing; ask model.float()"
        )
    return notes


def logits_with_all(
    model: nn.Module,
    record: ReadRound,
    inputs: Inputs,
    batch_size: int,
    device: torch.device,
    check: bool,
) -> tuple[Tensor, Batch]:
    """Return the ``(B, C)`` float64 logits of the round's model, on ``device``, and the inputs as they are to be taken.

    Args:
        model: The architecture, on ``device``, see ``frozen_eval``.
        record: The round.
        inputs: ``(B, ...)`` or a mapping of such tensors.
        batch_size: Inputs in one forward.
        device: Where to compute.
        check: Whether to see that an input has the same logits alone and in its batch. Where it has not, the inputs are
            taken one at a time; where it cannot be run alone, all at once.

    Raises:
        ValueError: There are no inputs, or some that are not finite.
        ModelMismatchError: The logits are not finite.
        CheckError: The model answers the same input in another way each time.
    """
    weights = record.global_weights
    batch = read_batch(_with_state(model, weights, device), inputs, device)
    logits = logits_under(model, weights, batch, batch_size, device)
    if not logits.isfinite().all():
        raise why_not_finite(record, batch, logits)
    if not check or batch.count == 1 or batch.whole:
        return logits, batch
    i = int(torch.randint(batch.count, (1,), generator=torch.Generator().manual_seed(0)))
    alone: Tensor | None
    try:
        alone = logits_under(model, weights, batch.take(torch.tensor([i])), 1, device)
    except (RuntimeError, IndexError, ValueError, TypeError):  # such as offsets into what all inputs share
        alone = None
    dtype = next((weight.dtype for weight in weights.values() if weight.is_floating_point()), torch.float32)
    taken = without_neighbours(batch, alone, logits[i : i + 1], dtype)
    if taken is not batch and alone is not None:
        again = logits_under(model, weights, batch.take(torch.tensor([i])), 1, device)
        if not same_logits(alone, again, dtype):
            raise CheckError(
                f"the model gives other logits for input {i} when it is asked again, so nothing can be compared with "
                "them: let nothing in its forward be drawn at random, such as dropout with training=True, or be kept"
            )
    return (logits if taken is batch else logits_under(model, weights, taken, batch_size, device)), taken


def logits_of_rows(
    model: nn.Module, weights: Mapping[str, Tensor], batch: Batch, rows: Tensor, batch_size: int, device: torch.device
) -> Tensor:
    """Return the ``(R, C)`` float64 logits of the inputs at the positions ``rows``, ``(R,)`` int64."""
    if batch.whole:
        return logits_under(model, weights, batch, batch_size, device)[rows.to(device)]
    return logits_under(model, weights, batch.take(rows), batch_size, device)


def logits_under(
    model: nn.Module, weights: Mapping[str, Tensor], batch: Batch, batch_size: int, device: torch.device
) -> Tensor:
    """Return ``(B, C)`` float64 logits of the model with other weights, on ``device``, where the model must be.

    Raises:
        ModelMismatchError: The weights lack a parameter or a persistent buffer of the model.
    """
    asked = _with_state(model, weights, device)
    return torch.cat([forward(asked, inputs).double() for inputs in batch.parts(batch_size, device)])


def _with_state(model: nn.Module, weights: Mapping[str, Tensor], device: torch.device) -> Callable[..., Any]:
    state, lacking = {}, []
    # Names without the duplicates of tied weights, which functional_call refuses.
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if name in weights:
            state[name] = aligned(weights[name].to(device, tensor.dtype))
        elif tensor.is_floating_point():
            lacking.append(name)
    kept = tensors_of(model) if lacking else {}
    lacking = [name for name in lacking if name in kept]  # a buffer that is not persistent is the model's own
    if lacking:
        raise ModelMismatchError(
            f"the weights lack {lacking[0]!r} of the model, of {len(lacking)} that it has beside them"
        )

    def with_state(*args: Any, **kwargs: Any) -> Any:
        return functional_call(model, state, args, kwargs)

    return with_state
