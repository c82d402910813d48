"""A robust rule as the server asks it: of messages of the server's own, with the rule that answers are computed by."""

from collections.abc import Sequence
from typing import cast

import torch
from flwr.app import ArrayRecord, Message
from torch import Tensor

from tracefl.federation.messages import ARRAYS, num_examples_of
from tracefl.provenance import Aggregation


def aggregate(rule: Aggregation, messages: Sequence[Message]) -> ArrayRecord | None:
    """Return what a rule makes of messages; None of fewer than it needs.

    The rule is given the floating-point tensors alone: counters such as BatchNorm's ``num_batches_tracked`` would
    outweigh all else in distances. Of whole numbers and truth values each entry's median is taken, the lower of two.

    Args:
        rule: The rule.
        messages: One of each client, in the order of their ids.
    """
    if len(messages) < rule.fewest:
        return None
    states = [cast(ArrayRecord, message.content[ARRAYS]).to_torch_state_dict() for message in messages]
    floating = {name: tensor for name, tensor in states[0].items() if tensor.is_floating_point()}
    shares = {k: num_examples_of(message) for k, message in enumerate(messages)}
    made = rule.aggregate(dict(enumerate(states)), shares, floating)
    return ArrayRecord(
        {
            name: made[name].to(tensor) if name in made else _median([state[name] for state in states])
            for name, tensor in states[0].items()
        }
    )


def _median(tensors: Sequence[Tensor]) -> Tensor:
    return torch.stack([tensor.long() for tensor in tensors]).median(dim=0).values.to(tensors[0])
