"""How far a round's clients moved the model, and which of them much farther than the others.

A single client cannot tell whether its update is too large; the others of the round can. A bound is a multiple of the
round's median norm, the lower one of an even number, so that fewer than half of the clients cannot move it.
"""

from collections.abc import Collection, Mapping
from statistics import median_low

import torch
from torch import Tensor, nn

from tracefl.provenance.record import ClientId, RoundRecord
from tracefl.provenance.removal import blocks

FEWEST_COMPARED = 3
"""Clients of a round without whose comparison no update is out of bounds: of two, either could be the odd one."""

_ROUNDING = 1e-4
"""By how much, relatively, a norm may miss a bound and reach it: it may have been brought down to just that."""


def update_norms(
    states: Mapping[ClientId, Mapping[str, Tensor]], previous: Mapping[str, Tensor], names: Collection[str]
) -> dict[ClientId, float]:
    """Return the L2 norm of each client's change of some tensors, computed in float64.

    Args:
        states: Client id to state dict.
        previous: What all started from.
        names: Names of tensors of floating-point numbers.
    """
    return {client_id: _norm(state, previous, names) for client_id, state in states.items()}


def bound_of(norms: Collection[float], multiple: float | None) -> float | None:
    """Return the largest norm that an update of a round may have; None for no bound.

    Args:
        norms: Of all the round's updates.
        multiple: Of their median; None for no bound.
    """
    if multiple is None or len(norms) < FEWEST_COMPARED:
        return None
    middle = median_low(norms)
    return multiple * middle if middle > 0 else None  # where most changed nothing, nothing is known of the others


def farthest(model: nn.Module, record: RoundRecord, multiple: float) -> tuple[ClientId, float] | None:
    """Return the client whose update is the largest beside the others', if it reaches a bound, and how many medians.

    Parameters and buffers are compared apart, each with a median of its own. Reads every client once.

    Args:
        model: The architecture: it tells parameters from buffers.
        record: The round. Where what its clients started from is not known, and the average stands for it, distances
            from the average are compared.
        multiple: Of the round's median norm, from which on an update is out of bounds.
    """
    parameters = {name for name, _ in model.named_parameters()}
    floating = [name for name, tensor in record.global_weights.items() if tensor.is_floating_point()]
    parts = ([n for n in floating if n in parameters], [n for n in floating if n not in parameters])
    norms: list[dict[ClientId, float]] = [{}, {}]
    for client_id, state in record.clients.items():
        for of_part, names in zip(norms, parts, strict=True):
            of_part[client_id] = _norm(state, record.previous_global, names)
    found: tuple[ClientId, float] | None = None
    for of_part in norms:
        bound = bound_of(of_part.values(), multiple)
        client_id = max(of_part, key=lambda k: of_part[k])
        if bound is None or of_part[client_id] < bound * (1 - _ROUNDING):
            continue
        medians = multiple * of_part[client_id] / bound
        if found is None or medians > found[1]:
            found = client_id, medians
    return found


def _norm(state: Mapping[str, Tensor], previous: Mapping[str, Tensor], names: Collection[str]) -> float:
    total = torch.zeros((), dtype=torch.float64)
    for name in names:
        for own, start in blocks(state[name], previous[name]):
            total += (own.double() - start.to(own.device)).square().sum().cpu()
    return float(total.sqrt())
