"""The clients' updates: what local training changed, theta_k - theta_previous, over the floating-point parameters.

BatchNorm's running means and variances are buffers, not parameters, and are left out: they follow the data's scale, not
a learning rate, and their changes (norms of 72 to 716 on ResNet-18) would drown those of the weights (8 to 14).
"""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from tracefl.provenance import RoundRecord
from tracefl.questions.baselines.evidence import Evidence

_BLOCK_NUMBERS = 2**19  # for all clients together: 4 MiB in float64


def update_blocks(evidence: Evidence, record: RoundRecord | None = None) -> Iterator[Tensor]:
    """Yield the K updates, a few parameters at a time, as ``(K, b)`` float64 on the evidence's device.

    Never more than one block is held in float64, however many clients and parameters there are.

    Args:
        evidence: Its model says what the parameters are.
        record: The round; None for the evidence's own.
    """
    record = evidence.record if record is None else record
    # Stored clients are read from their files each time that they are asked for.
    for block in weight_blocks(evidence.model, [record.previous_global, *record.clients.values()], evidence.device):
        yield block[1:] - block[0]


def weight_blocks(
    model: nn.Module, states: Sequence[Mapping[str, Tensor]], device: torch.device | str
) -> Iterator[Tensor]:
    """Yield the parameters of R state dicts, a few at a time, as ``(R, b)`` float64."""
    width = max(1, _BLOCK_NUMBERS // len(states))
    for name, parameter in model.named_parameters():  # tied weights once
        if not parameter.is_floating_point():
            continue
        rows = [state[name].reshape(-1) for state in states]
        for begin in range(0, rows[0].numel(), width):
            yield torch.stack([row[begin : begin + width].to(device) for row in rows]).double()


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
