"""The clients' updates: what local training changed, theta_k - theta_previous, over the floating-point parameters.

BatchNorm's running means and variances are buffers, not parameters, and are left out: they follow the data's scale, not
a learning rate, and their changes (norms of 72 to 716 on ResNet-18) would drown those of the weights (8 to 14).
"""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from tracefl.provenance.record import RoundRecord

_BLOCK = 2**19
"""Numbers of all clients together that are held at once: 4 MiB in float64."""


def update_blocks(
    model: nn.Module, record: RoundRecord, device: torch.device | str, dtype: torch.dtype = torch.float64
) -> Iterator[tuple[str, slice, Tensor]]:
    """Yield the K clients' updates, some numbers of a parameter at a time.

    Args:
        model: It says what the parameters are; tied ones come once.
        record: The round. Stored clients are read from their files for each parameter.
        device: Where to compute.
        dtype: Of the updates.

    Yields:
        The parameter's name, the place of its numbers in it, flat, and ``(K, b)`` what training changed of them.
    """
    states = [record.previous_global, *record.clients.values()]
    for name, part, block in weight_blocks(model, states, device, dtype):
        yield name, part, block[1:] - block[0]


def weight_blocks(
    model: nn.Module,
    states: Sequence[Mapping[str, Tensor]],
    device: torch.device | str,
    dtype: torch.dtype = torch.float64,
) -> Iterator[tuple[str, slice, Tensor]]:
    """Yield the parameters of R state dicts as ``update_blocks`` does, ``(R, b)``."""
    width = max(1, _BLOCK // len(states))
    for name, parameter in model.named_parameters():
        if not parameter.is_floating_point():
            continue
        rows = [state[name].reshape(-1) for state in states]
        for begin in range(0, rows[0].numel(), width):
            part = slice(begin, begin + width)
            yield name, part, torch.stack([row[part].to(device, dtype) for row in rows])


def cosines_with_others(products: Tensor) -> Tensor:
    """Return the cosine of each of K vectors with the sum of the others, ``(K,)``; 0 where one of the two is 0.

    Args:
        products: ``(K, K)`` their inner products.
    """
    own, rows = products.diagonal(), products.sum(dim=1)
    rest = (products.sum() - 2 * rows + own).clamp(min=0)
    lengths = (own * rest).sqrt()
    return torch.where(lengths > 0, (rows - own) / lengths, torch.zeros_like(own)).clamp(-1, 1)
