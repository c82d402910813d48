"""An answer that is proven: the first clients of an attribution, checked by their exact removal.

A first-order effect is an estimate. Its first clients are the ones that an answer is about, so these are left out of
the average one at a time, at one forward pass each, and the estimate gives way to what was found. Nothing is put first
that was not checked: where the estimate of an unchecked client is above all that was found, that client is next.
"""

import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from tracefl.examples import Inputs
from tracefl.provenance.attribution import Attribution
from tracefl.provenance.capture import undisturbed
from tracefl.provenance.counterfactual import centered_logit, float64_average, logits_under, weights_without
from tracefl.provenance.record import RoundRecord

Verify: TypeAlias = int | Literal["all"]


@torch.no_grad()
def verified(
    attribution: Attribution,
    global_model: nn.Module,
    record: RoundRecord,
    inputs: Inputs,
    count: Verify,
    *,
    batch_size: int = 256,
    device: torch.device | str | None = None,
) -> Attribution:
    """Return an attribution whose first clients are there by their exact removal.

    Args:
        attribution: ``(B, K)`` estimates of the removal effects, in the units of the centered logit.
        global_model: The architecture; its own weights are not used and not changed.
        record: The round.
        inputs: The B inputs.
        count: How many of each input's first clients are checked at least; ``"all"`` for all K.
        batch_size: Inputs in one forward.
        device: Where to compute; None for where the model is.

    Returns:
        The attribution with exact effects in the place of the checked clients' estimates, and ``verified`` telling
        which: at least ``count`` of each input and its first one. A client is not checked where no model is left
        without it, or none that gives finite logits (named in a warning). One forward pass of an input for each of its
        checked clients and one more; the weights without a client are made once for all inputs, or a few times.
    """
    ids, found = attribution.client_ids, attribution.contributions.double().clone()  # (B, K)
    done = torch.zeros_like(found, dtype=torch.bool)
    possible = torch.tensor([record.client_weights[client_id] < 1 for client_id in ids])
    wanted = torch.zeros_like(done)
    first = len(ids) if count == "all" else min(count, len(ids))
    wanted.scatter_(1, found.argsort(dim=1, descending=True, stable=True)[:, :first], True)
    wanted &= possible
    if not wanted.any():
        return attribution
    average, weights, infinite = float64_average(record), None, set[str]()
    with undisturbed(global_model, device) as place:
        classes = attribution.predicted.to(place)
        logits = logits_under(global_model, record.global_weights, inputs, batch_size, place)
        with_all = centered_logit(logits, classes).cpu()
        while wanted.any():
            for k in torch.nonzero(wanted.any(dim=0)).flatten().tolist():
                rows = torch.nonzero(wanted[:, k]).flatten()
                weights = weights_without(record, ids[k], average, out=weights)
                logits = logits_under(global_model, weights, _rows(inputs, rows), batch_size, place)
                effects = with_all[rows] - centered_logit(logits, classes[rows.to(place)]).cpu()
                if effects.isfinite().all():
                    found[rows, k], done[rows, k] = effects, True
                else:
                    infinite.add(ids[k])
                    possible[k] = False
            leading = found.masked_fill(~possible & ~done, -torch.inf).argmax(dim=1, keepdim=True)
            wanted = torch.zeros_like(done).scatter_(1, leading, True) & ~done & possible
    if infinite:
        names = ", ".join(sorted(infinite))
        warnings.warn(f"not verified: without client {names} the model gives logits that are not finite", stacklevel=2)
    dtype = attribution.contributions.dtype
    return replace(attribution, contributions=found.to(dtype), scores=found.softmax(dim=1).to(dtype), verified=done)


def _rows(inputs: Inputs, rows: Tensor) -> Inputs:
    if isinstance(inputs, Mapping):
        return {name: tensor[rows.to(tensor.device)] for name, tensor in inputs.items()}
    return inputs[rows.to(inputs.device)]
