"""Flower's robust strategies, asked to aggregate messages of the server's own."""

from collections.abc import Sequence
from typing import cast

import torch
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import Bulyan, FedAvg, FedMedian, FedTrimmedAvg, MultiKrum
from torch import Tensor

from tracefl.federation.messages import ARRAYS, METRICS
from tracefl.provenance import Aggregation


def flowers(aggregation: Aggregation) -> FedAvg:
    """Return Flower's strategy of a rule; ``MultiKrum`` of one client is ``Krum``."""
    if aggregation.rule == "krum":
        return MultiKrum(num_malicious_nodes=aggregation.malicious, num_nodes_to_select=aggregation.selected)
    if aggregation.rule == "bulyan":
        return Bulyan(num_malicious_nodes=aggregation.malicious)
    return FedTrimmedAvg(beta=aggregation.cut) if aggregation.rule == "trimmed_mean" else FedMedian()


def aggregate(
    strategy: FedAvg, server_round: int, messages: Sequence[Message]
) -> tuple[ArrayRecord | None, MetricRecord | None]:
    """Return what Flower's strategy makes of messages, and the means of their metrics.

    Flower is given the floating-point tensors alone, in float64. Distances between whole models in float32 are mostly
    rounding, and counters such as BatchNorm's ``num_batches_tracked`` would outweigh all else in them; of those each
    entry's median is taken.

    Args:
        strategy: That of ``flowers``.
        server_round: The round.
        messages: One of each client.
    """
    states = [cast(ArrayRecord, message.content[ARRAYS]).to_torch_state_dict() for message in messages]
    for message, state in zip(messages, states, strict=True):
        floating = {name: tensor.double() for name, tensor in state.items() if tensor.is_floating_point()}
        message.content = RecordDict({ARRAYS: ArrayRecord(floating), METRICS: message.content[METRICS]})
    arrays, metrics = strategy.aggregate_train(server_round, messages)
    if arrays is None:
        return None, None
    made = arrays.to_torch_state_dict()
    return ArrayRecord({name: _made(made, name, states) for name in states[0]}), metrics


def _made(made: dict[str, Tensor], name: str, states: Sequence[dict[str, Tensor]]) -> Tensor:
    if name in made:
        return made[name].to(states[0][name].dtype)
    return torch.stack([state[name] for state in states]).median(dim=0).values
