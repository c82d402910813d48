"""Which client prevents that another is left out: the model without that one gives logits that are not finite.

A client whose weights are extreme, such as a negative running variance, is held in check by the others of the average.
Leave out one of those, and its weights prevail: nothing can be said of the one that was left out, through no fault of
its own. Who is at fault is found by leaving out both.
"""

from collections.abc import Callable, Mapping

from torch import Tensor

from tracefl.provenance.reading import ReadRound
from tracefl.provenance.record import ClientId
from tracefl.provenance.removal import left_out

_TRIED = 3  # most suspected clients that are left out too, at one forward pass each


def who_prevents(
    record: ReadRound,
    client_id: ClientId,
    average: Mapping[str, Tensor],
    is_finite: Callable[[Mapping[str, Tensor]], bool],
) -> ClientId | None:
    """Return the client because of which the model without another gives logits that are not finite.

    Args:
        record: The round, as it was read.
        client_id: The client that was to be left out.
        average: ``float64_average(record)``.
        is_finite: Whether the model with some weights gives finite logits; False for the round's without ``client_id``.

    Returns:
        The client without which they would be finite; None where it is none of the most suspected ones.
    """
    others = [k for k in record.clients if k != client_id]
    if len(others) == 1:
        return others[0]
    if record.aggregation is not None and len(others) <= record.aggregation.fewest:
        return None  # no model is made of fewer
    order = {k: _suspicion(record, k, average) for k in others}
    for suspect in sorted(others, key=lambda k: order[k])[:_TRIED]:
        if is_finite(left_out(record, (client_id, suspect), average)):
            return suspect
    return None


def _suspicion(record: ReadRound, client_id: ClientId, average: Mapping[str, Tensor]) -> tuple[float, float]:
    """Return what sorts clients, the most suspected first: its most negative variance, then its largest distance."""
    p, own = record.client_weights[client_id], record.clients[client_id]
    lowest, farthest = 0.0, 0.0
    for name, mean in average.items():
        weights = own[name].to(mean)
        if name.endswith("running_var") and weights.numel():
            lowest = min(lowest, p * float(weights.min()))
        if weights.numel():
            farthest = max(farthest, p * float((weights - mean).abs().max()))
    return lowest, -farthest


def prevented_words(client_id: ClientId, by: ClientId | None) -> str:
    """Return that a client could not be left out, and who prevents it, as far as that is known."""
    because = "" if by is None else f", because of client {by}"
    return f"without client {client_id} the model gives logits that are not finite{because}"


def prevented_note(client_id: ClientId, by: ClientId | None) -> str:
    """Return the same in a few words, for an answer."""
    if by is None:
        return f"client {client_id} is not verified: without it logits are not finite"
    return f"client {client_id} is not verified: client {by}'s weights prevent it"
