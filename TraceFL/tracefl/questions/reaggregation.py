"""Stored rounds averaged again without some of their clients: what a run may have been without them, at once.

In round n of the run, the clients k start from W_{n-1} and send W_k,n, and the server deploys W_n = sum_k p_k W_k,n.
Without the clients in S, from round N on, the replayed weights V start from V_{N-1} = W_{N-1}, and

    V_n = sum_{k not in S} q_k W_k,n + carry (V_{n-1} - W_{n-1}),    q_k = p_k / sum_{j not in S} p_j

In round N, or where no round before has had a client of S, that is the exact average of the others. Later it is an
estimate, as the others did not train again from V_{n-1}: ``carry``, 0 to 1, says how much of the difference between the
two starts is taken to outlive a round of their training. With 1 the others' updates W_k,n - W_{n-1} are added up as
they are: what they did against a client of S is then done against nobody, round after round. With 0 each round is
averaged without S by itself, from a start that S had its part in. Buffers are carried with 0: BatchNorm's statistics
are measured anew in each round. A round of nobody else leaves V as it is. Needs torch alone.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from tracefl.provenance import RoundRecord
from tracefl.provenance.removal import blocks

Weights = Mapping[str, Tensor]

CARRY = 0.25
"""Near to runs that were trained again in accuracy and in attack success both, see docs/replay.md."""


@dataclass(frozen=True)
class ReaggregatedRound:
    """A round without some of its clients.

    Attributes:
        record: The round as it was.
        weights: V_n, a state dict in the types of the global model's.
        kept: The clients whose updates it has.
        left_out: Those that took part and are left out.
        is_exact: V_n is the others' average itself, no estimate.
        is_unchanged: V_n is W_n: no client has been left out so far.
        average_error: How far the clients' weighted average is from the one that the server made, as a fraction of how
            far that moved: rounding for FedAvg; None where the clients' weights were not needed.
    """

    record: RoundRecord
    weights: dict[str, Tensor]
    kept: tuple[str, ...]
    left_out: tuple[str, ...]
    is_exact: bool
    is_unchanged: bool
    average_error: float | None


def reaggregate(
    records: Iterable[RoundRecord], without: Collection[str], buffers: Collection[str] = (), carry: float = CARRY
) -> Iterator[ReaggregatedRound]:
    """Replay rounds without some clients.

    In float64. Integer buffers, which count batches, stay the run's. Where privacy added noise to the average, V_n gets
    the same noise: it is no client's. The clients' weights are asked for one at a time, and only in rounds that a
    client of ``without`` took part in: elsewhere the others' average is W_n.

    Args:
        records: Rounds one after another, each starting from the global weights of the one before.
        without: Ids of the clients in S.
        buffers: Names of the model's buffers; all others are weights.
        carry: In [0, 1], see above.

    Yields:
        Each round. Its weights are the caller's.
    """
    replayed: dict[str, Tensor] | None = None  # V in float64; None while it is W itself
    for record in records:
        kept = tuple(k for k in record.client_weights if k not in without)
        left_out = tuple(k for k in record.client_weights if k in without)
        is_exact, error = replayed is None and bool(kept), None
        if left_out and replayed is None:
            replayed = _in_float64(record.previous_global)
        if replayed is not None:
            if kept:
                for name, total in replayed.items():
                    start = record.previous_global[name]
                    total.sub_(start).mul_(0.0 if name in buffers else carry).add_(start)
            if left_out:
                error = _add_updates(replayed, record, kept)
            else:
                for name, total in replayed.items():
                    _add_difference(total, record.global_weights[name], record.previous_global[name])
        weights = {
            name: tensor.clone() if replayed is None or name not in replayed else replayed[name].to(tensor)
            for name, tensor in record.global_weights.items()
        }
        yield ReaggregatedRound(record, weights, kept, left_out, is_exact, replayed is None, error)


def _add_updates(replayed: Weights, record: RoundRecord, kept: Collection[str]) -> float:
    """Add the kept clients' mean update, and the round's noise; returns ``average_error``."""
    others, removed = ({name: torch.zeros_like(total) for name, total in replayed.items()} for _ in range(2))
    for client_id, p in record.client_weights.items():
        client, sums = record.clients[client_id], others if client_id in kept else removed
        for name, total in sums.items():
            _add_difference(total, client[name], record.previous_global[name], p)
    share = sum(record.client_weights[client_id] for client_id in kept)
    moved, missed = 0.0, 0.0
    for name, total in replayed.items():
        made = record.average[name].double() - record.previous_global[name]
        moved += float(made.square().sum())
        missed += float((made - others[name] - removed[name]).square().sum())
        if kept:
            total.add_(others[name], alpha=1 / share)
            if record.before_noise is not None:
                _add_difference(total, record.global_weights[name], record.before_noise[name])
    return (missed / moved) ** 0.5 if moved else float(missed > 0)


def _add_difference(total: Tensor, after: Tensor, before: Tensor, weight: float = 1.0) -> None:
    for sums, new, old in blocks(total, after, before):
        sums.add_(new.double().sub_(old), alpha=weight)


def _in_float64(weights: Weights) -> dict[str, Tensor]:
    """Return the floating-point weights in float64, contiguous."""
    floating = {name: tensor for name, tensor in weights.items() if tensor.is_floating_point()}
    return {name: torch.empty(w.shape, dtype=torch.float64, device=w.device).copy_(w) for name, w in floating.items()}
