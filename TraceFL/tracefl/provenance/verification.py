"""A verified answer: the first clients of an attribution, checked by their exact removal.

A first-order effect is an estimate. An answer is about its first clients, so these are left out of the average one at a
time, at one forward pass each, and the exact effect replaces the estimate. No client that could be checked comes first
unchecked: where the estimate of an unchecked client exceeds all exact effects, it is checked next. Most inputs have
their first clients among the same few: those are left out once, for all inputs.
"""

import warnings
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from tracefl.provenance.attribution import ROUNDING, Attribution
from tracefl.provenance.budget import Proofs
from tracefl.provenance.capture import frozen_eval
from tracefl.provenance.compute import Compute
from tracefl.provenance.inputs import Batch, Inputs, plain_model, read_batch
from tracefl.provenance.modes import in_any_mode
from tracefl.provenance.norms import farthest
from tracefl.provenance.options import Method
from tracefl.provenance.prevention import prevented_words, who_prevents
from tracefl.provenance.reading import check_average, read_round
from tracefl.provenance.record import ClientId, RoundRecord
from tracefl.provenance.removal import (
    centered_logit,
    float64_average,
    logits_of_rows,
    logits_under,
    logits_with_all,
    weights_without,
)

_CLOSE = 0.5
"""Share of the estimates' error, a root mean square, by which a client may be behind and yet be first."""

_ALIKE = 1e-5
"""Relative difference up to which estimates count as those of equal clients: float32's rounding."""


class ExactRemovals:
    """By how much each client's removal lowers the inputs' centered logits, each computed once, when it is needed.

    Attributes:
        classes: ``(B,)`` int64 classes of these logits: those set before the first removal, or else those predicted
            with all clients.
        effects: ``(B, K)`` float64 in logits where ``known``, and 0 elsewhere.
        known: ``(B, K)`` bool: the effect has been computed.
        possible: ``(K,)`` bool: a model remains without the client, see ``RoundRecord.remains_without``, and its logits
            were finite wherever computed.
        record: The round, as it was read.
        prevented: The clients without whom the logits are not finite, each with the client that makes them so, None
            where it is none alone, see ``prevention.py``.
    """

    @in_any_mode
    def __init__(
        self,
        global_model: nn.Module,
        record: RoundRecord,
        inputs: Inputs,
        compute: Compute = Compute(),
        check: bool = True,
    ) -> None:
        """Compute nothing yet.

        Args:
            global_model: The architecture; its own weights are not used and not changed.
            record: The round.
            inputs: The B inputs.
            compute: The device, and the inputs in one forward.
            check: As in ``logits_without``.

        Raises:
            RecordError: The record's weights of the average are none.
            ModelMismatchError: Names or shapes are not the model's.
        """
        self._model, self._inputs = plain_model(global_model), inputs
        self.record = read_round(self._model, record)
        self._compute, self._check = compute, check
        self.classes: Tensor | None = None
        self._average: dict[str, Tensor] = {}
        self._with_all = torch.empty(0)
        self._weights: dict[str, Tensor] | None = None
        self._batch: Batch | None = None
        with frozen_eval(self._model, compute.device) as place:
            count = read_batch(self._model, inputs, place).count
        self.effects = torch.zeros(count, len(record.clients), dtype=torch.float64)
        self.known = torch.zeros_like(self.effects, dtype=torch.bool)
        self.prevented: dict[ClientId, ClientId | None] = {}
        self.possible = torch.tensor([self.record.remains_without(client_id) for client_id in record.clients])

    @in_any_mode
    def find(self, wanted: Tensor) -> None:
        """Compute removals: one forward pass for each client on its inputs, and the first time one of all inputs.

        Known removals are not computed again. A client whose removal gives logits that are not finite is no longer
        ``possible``.

        Args:
            wanted: ``(B, K)`` bool.

        Raises:
            ModelMismatchError: A client's weights are not the global model's in name or shape, or the logits with all
                clients are not finite.
            RecordError: The record is no average.
        """
        wanted = wanted & ~self.known & self.possible
        if not wanted.any():
            return
        ids = tuple(self.record.clients)
        with frozen_eval(self._model, self._compute.device) as place:
            size = self._compute.forward_batch_size
            if self._batch is None:
                if self._check:
                    check_average(self.record)
                self._average = self._average_for(wanted)
                arguments = (self._model, self.record, self._inputs, size, place, self._check)
                logits, self._batch = logits_with_all(*arguments)
                self.classes = logits.argmax(dim=1).cpu() if self.classes is None else self.classes
                self._with_all = centered_logit(logits, self.classes.to(place))
            assert self.classes is not None
            classes = self.classes.to(place)
            for k in torch.nonzero(wanted.any(dim=0)).flatten().tolist():
                rows = torch.nonzero(wanted[:, k]).flatten()
                self._weights = weights_without(self.record, ids[k], self._average, out=self._weights)
                logits = logits_of_rows(self._model, self._weights, self._batch, rows, size, place)
                here = rows.to(place)
                effects = (self._with_all[here] - centered_logit(logits, classes[here])).cpu()
                if effects.isfinite().all():
                    self.effects[rows, k], self.known[rows, k] = effects, True
                else:
                    self.possible[k] = False
                    average = self._average or float64_average(self.record)
                    self.prevented[ids[k]] = who_prevents(
                        self.record, ids[k], average, lambda weights: self._gives_finite(weights, place)
                    )

    def _gives_finite(self, weights: Mapping[str, Tensor], place: torch.device) -> bool:
        """Return whether the model with other weights gives finite logits for all inputs."""
        assert self._batch is not None
        size = self._compute.forward_batch_size
        return bool(logits_under(self._model, weights, self._batch, size, place).isfinite().all())

    def _average_for(self, wanted: Tensor) -> dict[str, Tensor]:
        """Return the clients' average in float64: as it was deployed, where all clients need not be read anyway.

        A client of more than half the weight leaves little of that but its rounding, see ``float64_average``; so may
        the server's step.
        """
        largest = max(self.record.client_weights.values())
        if self.record.aggregation is not None:
            return {}  # each model without a client is made of the others, and none of the whole
        if wanted.any(dim=0).all() or largest > 0.5 or self.record.server_step != 1:
            return float64_average(self.record)
        average = self.record.average
        return {name: weights.double() for name, weights in average.items() if weights.is_floating_point()}

    def doubt(self, most: float | None) -> str:
        """Return whose update is out of bounds, and how far, in words; empty where nobody's is.

        Args:
            most: As ``Method.max_update_norm``.
        """
        found = None if most is None else farthest(self._model, self.record, most)
        return "" if found is None else f"client {found[0]}'s update is {found[1]:.3g} times the round's median"

    def attribution(self) -> Attribution | None:
        """Return the attribution by exact removals alone; None if one of them is not possible.

        Takes K + 1 forward passes of an input, and reads the clients' weights twice.

        Raises:
            ModelMismatchError: As ``find``.
        """
        self.find(torch.ones_like(self.known))
        if not self.known.all():
            return None
        assert self.classes is not None
        double = any(tensor.dtype == torch.float64 for tensor in self.record.global_weights.values())
        effects = self.effects if double else self.effects.float()
        scores = self.effects.softmax(dim=1).to(effects.dtype)
        return Attribution(tuple(self.record.clients), effects, scores, self.classes, verified=self.known.clone())


def verified(
    attribution: Attribution, removals: ExactRemovals, proofs: Proofs, method: Method = Method()
) -> Attribution:
    """Return an attribution whose first clients are ranked by their exact removal.

    All clients are left out where the estimates are in doubt, because a client's update is out of bounds, or because
    they miss what is found exactly: whoever an estimate hides is not among its first clients.

    Args:
        attribution: ``(B, K)`` estimates of the removal effects, in the units of the centered logit.
        removals: Exact removals of the same round and inputs; if none is computed yet, they will be those of the
            attributed classes.
        proofs: How many clients are checked at least.
        method: Its bounds say when estimates are in doubt.

    Returns:
        The attribution with exact effects in place of the checked clients' estimates. ``verified`` marks these: at
        least ``proofs`` for each input, its first one (where clients are left out for all inputs, also those whose
        estimate is behind it by less than half of the error that the removals show), and any client with the same
        estimate as one of them, so that equal clients stay equal. A client cannot be checked if no model is left
        without it, or none that gives finite logits (``prevented`` and a warning name it, and who makes it so): it
        keeps its estimate, wherever that puts it. Takes one forward pass of an input for each of its checked clients
        and one more, and reads a checked client's weights each time they are needed: once, or a few times; and every
        client's once, to compare their updates.
    """
    estimates = attribution.contributions.double()
    found = torch.where(removals.known, removals.effects, estimates)  # (B, K)
    count = found.shape[1] if proofs.each == "all" else proofs.each
    doubt = removals.doubt(method.max_update_norm) if count and count < found.shape[1] else ""
    if doubt:
        proofs, count = Proofs("all"), found.shape[1]
    wanted = _largest_means(found, removals, proofs.shared) if proofs.shared else _next(found, removals, count)
    if not count or not (wanted | removals.known).any():
        return attribution
    if removals.classes is None:  # those of another forward pass could differ by rounding
        removals.classes = attribution.predicted
    shared = proofs.shared > 0
    while wanted.any():
        removals.find(wanted)
        found = torch.where(removals.known, removals.effects, found)
        margin = _CLOSE * _error(estimates, removals) if proofs.shared else 0.0
        wanted = _next(found, removals, count, margin)
        if shared:  # each input's own first ones, by what the clients left out for all of them have shown
            wanted, shared = wanted | _first(found, removals, count), False
        if not wanted.any() and not doubt and (doubt := _miss(estimates, removals, method.max_estimate_error)):
            wanted = removals.possible & ~removals.known
    for client_id, by in removals.prevented.items():
        warnings.warn(f"not verified: {prevented_words(client_id, by)}", stacklevel=2)
    dtype = attribution.contributions.dtype
    return replace(
        attribution,
        contributions=found.to(dtype),
        scores=found.softmax(dim=1).to(dtype),
        verified=removals.known.clone(),
        prevented=dict(removals.prevented),
        doubt=doubt,
    )


def _miss(estimates: Tensor, removals: ExactRemovals, most: float | None) -> str:
    """Return that the estimates miss the effects that are known, in words; empty where not by more than ``most``.

    Args:
        estimates: ``(B, K)``.
        removals: What is known.
        most: As ``Method.max_estimate_error``.
    """
    if most is None or removals.known.all() or not removals.known.any():
        return ""
    size, error = float(removals.effects[removals.known].square().mean().sqrt()), _error(estimates, removals)
    if error <= most * size + ROUNDING:
        return ""
    return f"estimates miss the exact effects of those first left out, {size:.2g} logits, by {error:.2g}"


def _largest_means(found: Tensor, removals: ExactRemovals, count: int) -> Tensor:
    """Return whom to check for all inputs, ``(B, K)`` bool: the clients with the largest mean estimates.

    Clients with equal means are checked together, more than ``count`` where need be: which of them comes first in the
    record says nothing about them.

    Args:
        found: ``(B, K)`` estimates.
        removals: Which clients can be checked.
        count: How many of them to check at least.
    """
    means = found.mean(dim=0).masked_fill(~removals.possible, -torch.inf)  # (K,)
    rounding = _ALIKE * found.abs().mean(dim=0)
    least = means.sort(descending=True).values[min(count, len(means)) - 1]
    return (means.isfinite() & (means >= least - rounding)).expand_as(found)


def _first(found: Tensor, removals: ExactRemovals, count: int) -> Tensor:
    """Return the unchecked clients among each input's first ``count`` and those like the last, ``(B, K)`` bool.

    Args:
        found: ``(B, K)`` exact effects where known, otherwise estimates.
        removals: What is known.
        count: How many clients, at least 1.
    """
    ranked = found.masked_fill(~(removals.known | removals.possible), -torch.inf).sort(dim=1, descending=True).values
    last = ranked[:, min(count, found.shape[1]) - 1].unsqueeze(1)
    return ~removals.known & removals.possible & (found >= last - _ALIKE * last.abs())


def _error(estimates: Tensor, removals: ExactRemovals) -> float:
    """Return by how much known effects differ from their ``(B, K)`` estimates, a root mean square in logits."""
    return float((removals.effects - estimates)[removals.known].square().mean().sqrt()) if removals.known.any() else 0.0


def _next(found: Tensor, removals: ExactRemovals, count: int, margin: float = 0.0) -> Tensor:
    """Return whom to check next, ``(B, K)`` bool: those missing from the first ``count``, else an unchecked leader.

    Args:
        found: ``(B, K)`` exact effects where known, otherwise estimates.
        removals: What is known.
        count: How many clients to check for each input.
        margin: By how much an estimate may be behind the leader's and be checked too, in logits.
    """
    unknown = found.masked_fill(removals.known | ~removals.possible, -torch.inf)
    lacking = count - removals.known.sum(dim=1)  # (B,)
    ranked = unknown.sort(dim=1, descending=True).values
    last = ranked.gather(1, (lacking - 1).clamp(0, found.shape[1] - 1).unsqueeze(1)).squeeze(1)
    leader = found.masked_fill(~(removals.known | removals.possible), -torch.inf).max(dim=1).values
    least = torch.where(lacking > 0, last, leader - margin)  # minus infinity where fewer are left: all of them
    return unknown.isfinite() & (unknown >= (least - _ALIKE * least.abs()).unsqueeze(1))
