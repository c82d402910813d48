"""The clients' updates: what local training changed, theta_k - theta_previous, over the floating-point parameters.

BatchNorm's running means and variances are buffers, not parameters, and are left out: they follow the data's scale, not
a learning rate, and their changes (norms of 72 to 716 on ResNet-18) would drown those of the weights (8 to 14).
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from tracefl.questions.baselines.evidence import Evidence

_BLOCK_NUMBERS = 2**19  # for all clients together: 4 MiB in float64


def update_blocks(evidence: Evidence) -> Iterator[Tensor]:
    """Yield the K updates, a few parameters at a time, as ``(K, b)`` float64 on the evidence's device.

    Never more than one block is held in float64, however many clients and parameters there are.
    """
    record = evidence.record
    clients = list(record.clients.values())  # stored ones are read from their files each time
    width = max(1, _BLOCK_NUMBERS // len(clients))
    for name, parameter in evidence.model.named_parameters():  # tied weights once
        if not parameter.is_floating_point():
            continue
        before = record.previous_global[name].reshape(-1)
        after = [weights[name].reshape(-1) for weights in clients]
        for begin in range(0, before.numel(), width):
            place = slice(begin, begin + width)
            block = torch.stack([flat[place] for flat in after]).to(evidence.device).double()
            yield block.sub_(before[place].to(evidence.device))


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
