"""Stored rounds averaged again without some of their clients: an estimate of the run without them, with no training.

In round n of the run, the clients k start from W_{n-1} and send W_k,n, and the server deploys W_n = sum_k p_k W_k,n.
Without the clients in S, from round N on, the replayed weights V start from V_{N-1} = W_{N-1}, and

    V_n = sum_{k not in S} q_k W_k,n + carry (V_{n-1} - W_{n-1}),    q_k = p_k / sum_{j not in S} p_j

In the first round with a client of S, that is the exact average of the others. In later rounds it is an estimate,
because the others did not train again from V_{n-1}: ``carry``, 0 to 1, is the part of the difference between the two
starts that is assumed to survive a round of their training. With 1 the others' updates W_k,n - W_{n-1} are added up
unchanged, so that their corrections of a client of S continue although it is gone. With 0 each round is averaged
without S by itself, from a start that S contributed to. Buffers have a carry of 0, because BatchNorm's statistics are
measured anew in each round. A round in which only clients of S took part leaves V unchanged. Needs torch alone.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from tracefl.provenance import RoundRecord
from tracefl.provenance.removal import blocks

Weights = Mapping[str, Tensor]

CARRY = 0.25
"""Comes close to retrained runs in accuracy and in attack success, see docs/replay.md."""


@dataclass(frozen=True)
class ReaggregatedRound:
    """A round's weights, averaged again without some of its clients from a stored RoundRecord.

    Attributes:
        record: The round with all its clients.
        weights: V_n, a state dict in the dtypes of the global model.
        kept: The participants that are still averaged.
        removed: The participants that are no longer averaged.
        is_exact: V_n is the exact average of the others, not an estimate.
        is_unchanged: V_n is W_n, because no client has been removed so far.
        average_error: Distance between the clients' weighted average and the server's, as a fraction of how far the
            server's moved: rounding for FedAvg. None where the clients' weights were not read.
    """

    record: RoundRecord
    weights: dict[str, Tensor]
    kept: tuple[str, ...]
    removed: tuple[str, ...]
    is_exact: bool
    is_unchanged: bool
    average_error: float | None


def reaggregate(
    records: Iterable[RoundRecord], without: Collection[str], buffers: Collection[str] = (), carry: float = CARRY
) -> Iterator[ReaggregatedRound]:
    """Average rounds again without some clients, in float64.

    Integer buffers, which count batches, stay the run's. Where privacy added noise to the average, V_n gets the same
    noise, because it belongs to no client. The clients' weights are read one at a time, and only in rounds in which a
    client of ``without`` took part; in the others W_n is the average.

    Args:
        records: Consecutive rounds, each starting from the global weights of the one before.
        without: Ids of the clients in S.
        buffers: Names of the model's buffers; all other tensors are weights.
        carry: In [0, 1], see above.

    Yields:
        One round for each record. The caller may change its weights.
    """
    replayed: dict[str, Tensor] | None = None  # V in float64; None while it is W itself
    for record in records:
        kept = tuple(k for k in record.client_weights if k not in without)
        removed = tuple(k for k in record.client_weights if k in without)
        is_exact, error = replayed is None and bool(kept), None
        if removed and replayed is None:
            replayed = _in_float64(record.previous_global)
        if replayed is not None:
            if kept:
                for name, total in replayed.items():
                    start = record.previous_global[name]
                    total.sub_(start).mul_(0.0 if name in buffers else carry).add_(start)
            if removed:
                error = _add_updates(replayed, record, kept)
            else:
                for name, total in replayed.items():
                    _add_difference(total, record.global_weights[name], record.previous_global[name])
        weights = {
            name: tensor.clone() if replayed is None or name not in replayed else replayed[name].to(tensor)
            for name, tensor in record.global_weights.items()
        }
        yield ReaggregatedRound(record, weights, kept, removed, is_exact, replayed is None, error)


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
