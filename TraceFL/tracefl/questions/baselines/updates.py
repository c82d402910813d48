"""The clients' updates as the rules compare them, see ``provenance/updates.py``."""

from collections.abc import Iterator

import torch
from torch import Tensor

from tracefl.provenance import RoundRecord, updates
from tracefl.questions.baselines.evidence import Evidence


def update_blocks(evidence: Evidence, record: RoundRecord | None = None) -> Iterator[Tensor]:
    """Yield the K updates, a few parameters at a time, as ``(K, b)`` float64 on the evidence's device.

    Args:
        evidence: Its model says what the parameters are.
        record: The round; None for the evidence's own.
    """
    record = evidence.record if record is None else record
    for _, _, block in updates.update_blocks(evidence.model, record, evidence.device):
        yield block


def squared_distances(evidence: Evidence) -> Tensor:
    """Return the squared Euclidean distances of the updates, ``(K, K)`` float64 on the CPU, exactly symmetric.

    Computed as |u - v|^2 = |u|^2 + |v|^2 - 2 <u, v>, with matrix products, on updates less their mean, which keeps
    cancellation small. Cost: K^2 P multiplications for P parameters.
    """
    num_clients = len(evidence.record.clients)
    products = torch.zeros(num_clients, num_clients, dtype=torch.float64, device=evidence.device)
    for block in update_blocks(evidence):
        block.sub_(block.mean(dim=0))
        products.addmm_(block, block.t())
    products = products.cpu()
    norms = products.diagonal()
    distances = norms.unsqueeze(0) + norms.unsqueeze(1) - (products + products.t())
    return distances.clamp_(min=0).fill_diagonal_(0)
