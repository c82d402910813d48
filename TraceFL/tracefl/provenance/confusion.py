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
everything towards it, too. What it does not do is to make two classes alike: whatever it raises c by for inputs of y,
it raises c by more for inputs of c. So beside it stands what is left of push_k[y, c] without a constant for each class,
which is all that holding more or less of a class adds:

    rest_k[y, c] = push_k[y, c] - (b_k[c] - b_k[y]),

where b_k[c] is the mean over y of (push_k[y, c] - push_k[c, y]) / 2, the least squares fit. Who was taught that y is c
and nothing else stands out by that. One forward pass a client gives all pairs of classes at once.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from tracefl.provenance.capture import frozen_eval
from tracefl.provenance.compute import Compute
from tracefl.provenance.inputs import Batch, Inputs, plain_model
from tracefl.provenance.modes import in_any_mode
from tracefl.provenance.prevention import who_prevents
from tracefl.provenance.reading import ReadRound, read_round
from tracefl.provenance.record import ClientId, RoundRecord
from tracefl.provenance.removal import float64_average, logits_under, logits_with_all, without_each


@dataclass(frozen=True)
class Confusions:
    """How far each of K clients pushes inputs of each of C classes towards each other class, over N inputs.

    Attributes:
        client_ids: The K clients.
        push: ``(K, C, C)`` float64 in logits, entry ``[k, y, c]`` of inputs of class y towards class c; 0 on the
            diagonal, NaN where no input is of class y.
        inputs: ``(C,)`` int64, how many inputs are of each class.
        prevented: Clients that cannot be left out since the model without them gives logits that are not finite, each
            with the client that makes them so, None where it is none alone. Their entries are NaN.
    """

    client_ids: tuple[ClientId, ...]
    push: Tensor
    inputs: Tensor
    prevented: Mapping[ClientId, ClientId | None] = field(default_factory=dict)

    @property
    def toward(self) -> Tensor:
        """``(K, C)``: the mean push of inputs of the other classes towards a class."""
        others = ~torch.eye(self.push.shape[1], dtype=torch.bool)
        return self.push.where(others, torch.nan).nanmean(dim=1)

    @property
    def rest(self) -> Tensor:
        """``(K, C, C)``: what is left of ``push`` without a constant for each class, see above."""
        odd = (self.push - self.push.transpose(1, 2)) / 2  # NaN where either class has no input
        constant = odd.nanmean(dim=1)  # (K, C), up to one number for each client
        return self.push - (constant.unsqueeze(1) - constant.unsqueeze(2))

    @property
    def suspicion(self) -> Tensor:
        """``(K, C, C)``: how far each client stands out of the round's for each confusion, in standard deviations.

        The sum of what its push towards the class and its rest are above the clients' mean, each in standard
        deviations over the clients. 0 of clients that cannot be left out, and where nothing is known.
        """
        towards = standardized(self.toward).unsqueeze(1)
        return (towards + standardized(self.rest)).nan_to_num(nan=0.0)


def standardized(values: Tensor) -> Tensor:
    """Return values less their mean over the first dimension, in standard deviations; 0 where all are equal.

    Args:
        values: ``(K, ...)``, NaN where unknown, which stays so.
    """
    apart = values - values.nanmean(dim=0)
    deviation = apart.square().nanmean(dim=0).sqrt()
    return torch.where(deviation > 0, apart / deviation, torch.zeros_like(apart)).where(~values.isnan(), torch.nan)


@in_any_mode
def confusions(
    global_model: nn.Module,
    record: RoundRecord,
    inputs: Inputs,
    labels: Tensor,
    *,
    check: bool = True,
    compute: Compute = Compute(),
) -> Confusions:
    """Return how far a round's clients push inputs of one class towards another, exactly.

    Args:
        global_model: The architecture; its own weights are not used and not changed.
        record: The round, of at least two clients.
        inputs: The server's N inputs, or some tens of each class: ``(N, ...)`` or a mapping of such tensors.
        labels: ``(N,)`` int64 their true classes.
        check: As in ``logits_without``.
        compute: The device, and the inputs in one forward.

    Returns:
        The pushes. K + 1 forward passes of the inputs, and two readings of the clients' weights; logits of one client
        are held at a time.

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
    return Confusions(
        tuple(record.clients),
        torch.stack(pushes),
        torch.bincount(labels, minlength=classes).cpu(),
        prevented,
    )


def _means(labels: Tensor, classes: int) -> Tensor:
    """Return what takes the mean over each class's inputs, ``(C, N)``; NaN for a class without any."""
    chosen = (labels == torch.arange(classes, device=labels.device).unsqueeze(1)).double()
    return chosen / chosen.sum(dim=1, keepdim=True)


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
