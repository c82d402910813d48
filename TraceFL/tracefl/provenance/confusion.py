r"""Who pushes inputs of one class towards another: what tells a client that was taught a confusion.

A misprediction is a poor witness of its cause. Most are ordinary errors of a young model, and the first client in line
is often an honest holder of the predicted class. What tells is the question of all inputs of the true class, right and
wrong: who raises the logit of the wrong class over that of the true one? With E_k[i, c] the exact effect of client k on
logit c of input i, which is the model's logit less that of the average without k (removal.py), the *push* of client k
from class y to class c is

    push_k[y, c] = mean over the inputs i of class y of (E_k[i, c] - E_k[i, y]),

in logits, and its push towards c is the mean of that over the other classes:

    toward_k[c] = mean over the classes y other than c of push_k[y, c].

Who was taught that all of them are c has the largest of these, but an honest client that holds much of c pushes
everything towards it, too. Two more tell them apart. An honest client does not make two classes alike: whatever it
raises c by for inputs of y, it raises c by more for inputs of c. What it holds more or less of cancels in

    alike_k[y, c] = push_k[y, c] + push_k[c, y].

And the update of who was taught something else points another way than the others', most of all where the logit in
question depends on the weights. With u_k the client's update of the parameters, and m_c the size of the derivative of
logit c, less the mean of all, by each of them, a mean over inputs that are not predicted as c,

    against_k[c] = 1 - cos(m_c * u_k, sum over the other clients j of m_c * u_j).

One forward pass of the inputs for each client gives all pairs of classes at once, and one backward pass of some of them
for each class the last.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from tracefl.provenance.capture import frozen_eval
from tracefl.provenance.compute import Compute
from tracefl.provenance.input_gradients import gradients_of, requiring_grad
from tracefl.provenance.inputs import Batch, Inputs, forward, plain_model
from tracefl.provenance.modes import in_any_mode
from tracefl.provenance.prevention import who_prevents
from tracefl.provenance.reading import ReadRound, holding, read_round
from tracefl.provenance.record import ClientId, RoundRecord
from tracefl.provenance.removal import float64_average, logits_under, logits_with_all, without_each
from tracefl.provenance.scoring import select_mispredicted
from tracefl.provenance.updates import cosines_with_others, update_blocks

_AGAINST = 0.5
"""Weight of ``against`` in a suspicion, chosen with benchmarks/confusion.py on seeds 101 and 102."""

_AGAINST_OF_CLASS, _FEWEST_ALIKE = 0.25, 0.3
"""The same in a class's suspicion, and which share of the other classes may be less alike with it: chosen with
the same on seeds 101 to 104."""

_ROUNDING = 1e-6
"""Relative to the largest push, or to a cosine of 1: what clients differ by less than they do not differ by."""

_MOST_DERIVED = 20
"""Inputs of which a logit's derivative is taken."""


@dataclass(frozen=True)
class Confusions:
    """How far each of K clients pushes inputs of each of C classes towards each other class, over N inputs.

    Attributes:
        client_ids: The K clients.
        push: ``(K, C, C)`` float64 in logits, entry ``[k, y, c]`` of inputs of class y towards class c; 0 on the
            diagonal, NaN where no input is of class y.
        against: ``(K, C)`` float64, from 0 for an update in the others' direction to 2 for the opposite.
        inputs: ``(C,)`` int64, how many inputs are of each class.
        skill: How far the model is right beyond chance, as a mean over the classes that have inputs: 0 as often as if
            it drew one of them, 1 always. NaN where the classes are those that it predicts.
        prevented: Clients that cannot be left out since the model without them gives logits that are not finite, each
            with the client that makes them so, None where it is none alone. Their entries are NaN.
    """

    client_ids: tuple[ClientId, ...]
    push: Tensor
    against: Tensor
    inputs: Tensor
    skill: float
    prevented: Mapping[ClientId, ClientId | None] = field(default_factory=dict)

    @property
    def toward(self) -> Tensor:
        """``(K, C)``: the mean push of inputs of the other classes towards a class."""
        return self._of_others(self.push).nanmean(dim=1)

    @property
    def alike(self) -> Tensor:
        """``(K, C, C)`` in logits, symmetric: how much less the client makes of what tells two classes apart."""
        return self.push + self.push.transpose(1, 2)

    @property
    def suspicion(self) -> Tensor:
        """``(K, C, C)``: how far each client stands out of the round's for each confusion, in standard deviations.

        By how much its ``toward``, its ``alike`` and, by half, its ``against`` are above the clients' mean, each in
        standard deviations over the clients. 0 of clients that cannot be left out, and where nothing is known.
        """
        of_class = self._in_logits(self.toward) + _AGAINST * standardized(self.against, _ROUNDING)
        return (of_class.unsqueeze(1) + self._in_logits(self.alike)).nan_to_num(nan=0.0)

    @property
    def class_suspicion(self) -> Tensor:
        """``(K, C)``: how far each client stands out as one that was taught that things are of a class.

        The lower of two, each in standard deviations over the clients: its ``toward``, and the ``alike`` that it has
        with at least 70 % of the other classes. An honest client that holds much of a class has the first alone, one
        that knows little the second. Added is a quarter of its ``against``. 0 where nothing is known.
        """
        alike = self._of_others(self._in_logits(self.alike)).nanquantile(_FEWEST_ALIKE, dim=1)
        both = torch.minimum(self._in_logits(self.toward), alike)
        return (both + _AGAINST_OF_CLASS * standardized(self.against, _ROUNDING)).nan_to_num(nan=0.0)

    def _in_logits(self, values: Tensor) -> Tensor:
        """Return pushes, or sums of them, in standard deviations over the clients."""
        return standardized(values, _ROUNDING * float(self.push.nan_to_num(nan=0.0).abs().max()))

    def _of_others(self, values: Tensor) -> Tensor:
        """Return values of pairs of classes, NaN on the diagonal."""
        return values.where(~torch.eye(values.shape[1], dtype=torch.bool), torch.nan)


def standardized(values: Tensor, rounding: float = 0.0) -> Tensor:
    """Return values less their mean over the first dimension, in standard deviations; 0 where all are equal.

    Args:
        values: ``(K, ...)``, NaN where unknown, which stays so.
        rounding: A standard deviation up to which they are.
    """
    apart = values - values.nanmean(dim=0)
    deviation = apart.square().nanmean(dim=0).sqrt()
    return torch.where(deviation > rounding, apart / deviation, torch.zeros_like(apart)).where(
        ~values.isnan(), torch.nan
    )


@in_any_mode
def confusions(
    global_model: nn.Module,
    record: RoundRecord,
    inputs: Inputs,
    labels: Tensor | None,
    *,
    check: bool = True,
    compute: Compute = Compute(),
) -> Confusions:
    """Return how far a round's clients push inputs of one class towards another, exactly.

    Args:
        global_model: The architecture; its own weights are not used and not changed.
        record: The round, of at least two clients.
        inputs: The server's N inputs, or some tens of each class: ``(N, ...)`` or a mapping of such tensors.
        labels: ``(N,)`` int64 their true classes; None where they are not known, to go by what the model predicts.
        check: As in ``logits_without``.
        compute: The device, and the inputs in one forward.

    Returns:
        The pushes. K + 1 forward passes of the inputs and C backward passes of up to 20 of them; the clients' weights
        are read C + 2 times, and the logits of one client held at a time.

    Raises:
        ValueError: A client is the whole average, inputs are not finite, or labels are not theirs.
        ModelMismatchError: The logits with all clients are not finite, or names or shapes are not the model's.
        RecordError: The record is no average, see ``RoundRecord``.
    """
    model = plain_model(global_model)
    record = read_round(model, record)
    size = compute.forward_batch_size
    with frozen_eval(model, compute.device) as place:
        logits, batch = logits_with_all(model, record, inputs, size, place, check)  # (N, C)
        classes = logits.shape[1]
        predicted = logits.argmax(dim=1)
        is_known = labels is not None
        labels = predicted.cpu() if labels is None else labels
        if labels.shape != (len(logits),) or not ((labels >= 0) & (labels < classes)).all():
            raise ValueError(f"labels must be {len(logits)} classes from 0 to {classes - 1}, one for each input")
        of_class = _means(labels.to(place), classes)
        pushes, prevented = [], {}
        for client_id, without in without_each(model, record, batch, None, size, place, check):
            effects = logits - without
            if not effects.isfinite().all():
                prevented[client_id] = _preventer(model, record, client_id, batch, size, place)
                effects = torch.full_like(effects, torch.nan)
            means = of_class @ effects  # (C, C)
            pushes.append((means - means.diagonal().unsqueeze(1)).cpu())
        with holding(model, record.global_weights):
            against = torch.stack([_against(model, record, batch, logits, c, place) for c in range(classes)], dim=1)
    return Confusions(
        tuple(record.clients),
        torch.stack(pushes),
        against,
        torch.bincount(labels, minlength=classes).cpu(),
        _skill(of_class @ (predicted == labels.to(place)).double()) if is_known else math.nan,
        prevented,
    )


def _means(labels: Tensor, classes: int) -> Tensor:
    """Return what takes the mean over each class's inputs, ``(C, N)``; NaN for a class without any."""
    chosen = (labels == torch.arange(classes, device=labels.device).unsqueeze(1)).double()
    return chosen / chosen.sum(dim=1, keepdim=True)


def _skill(right: Tensor) -> float:
    """Return how far a model is right beyond chance, by the share of each class's inputs that it is right about."""
    known = right[~right.isnan()]
    return (float(known.mean()) * len(known) - 1) / max(1, len(known) - 1)


def _against(model: nn.Module, record: ReadRound, batch: Batch, logits: Tensor, c: int, place: torch.device) -> Tensor:
    """Return how far each client's update points away from the others' where logit ``c`` depends on it, ``(K,)``."""
    others = logits.argmax(dim=1).cpu() != c
    asked = others if others.any() else ~others  # all are taken for it
    sizes = _derivative_sizes(model, batch, select_mispredicted(asked, _MOST_DERIVED), c, place)
    products = torch.zeros(len(record.clients), len(record.clients), dtype=torch.float64, device=place)
    for name, part, block in update_blocks(model, record, place, torch.float32):
        if name in sizes:
            block *= sizes[name][part]
            products += (block @ block.t()).double()
    return 1 - cosines_with_others(products).cpu()


def _derivative_sizes(model: nn.Module, batch: Batch, some: Tensor, c: int, place: torch.device) -> dict[str, Tensor]:
    """Return by name, flat, the sizes of the derivatives of logit ``c`` less the mean of all; 1 the largest."""
    parameters = {name: p for name, p in model.named_parameters() if p.is_floating_point()}
    taken = batch if batch.whole else batch.take(some)
    total = [torch.zeros_like(p) for p in parameters.values()]
    with requiring_grad(list(parameters.values())):
        for inputs in taken.parts(_MOST_DERIVED, place):
            rows = forward(model, inputs)
            rows = rows[some.to(place)] if batch.whole else rows
            value = (rows[:, c] - rows.mean(dim=1)).sum()
            for sums, found in zip(total, gradients_of(value, list(parameters.values()), keep=False), strict=True):
                if found is not None:
                    sums += found
    largest = max(float(sums.abs().max()) for sums in total) or 1.0
    return {name: (sums.abs() / largest).reshape(-1) for name, sums in zip(parameters, total, strict=True)}


def _preventer(
    model: nn.Module, record: ReadRound, client_id: ClientId, batch: Batch, size: int, place: torch.device
) -> ClientId | None:
    average = float64_average(record)
    return who_prevents(
        record,
        client_id,
        average,
        lambda weights: bool(logits_under(model, weights, batch, size, place).isfinite().all()),
    )
