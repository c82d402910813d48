"""Clients whose update differs from the others' in length or direction."""

import torch
from torch import Tensor

from tracefl.questions.baselines.evidence import Evidence, NotApplicableError
from tracefl.questions.baselines.updates import update_blocks


def update_norm(evidence: Evidence) -> Tensor:
    """Suspect the client whose update is unusually long or short.

    The suspicion is the distance of the update's L2 norm from the clients' median, in units of the median of these
    distances (the median absolute deviation, Hampel 1974). If more than half of the norms are equal, that unit is 0 and
    the distances are returned as they are. Cost: one read of the weights.

    Returns:
        ``(K,)``, at least 0.
    """
    squares = torch.zeros(len(evidence.record.clients), dtype=torch.float64, device=evidence.device)
    for block in update_blocks(evidence):
        squares += block.square_().sum(dim=1)
    norms = squares.sqrt().cpu()
    deviations = (norms - norms.quantile(0.5)).abs()
    unit = deviations.quantile(0.5)
    return deviations / unit if unit > 0 else deviations


def cosine(evidence: Evidence) -> Tensor:
    """Suspect the client whose update points away from the mean update of the others: 1 - their cosine.

    After FoolsGold (Fung, Yoon and Beschastnikh 2020), which also judges clients by the cosines of their updates, but
    the other way round: it looks for sybils, which are too much alike, by each client's largest cosine with another,
    over updates summed over all rounds. This rule looks for the client that differs, in one round, from all others at
    once; the mean weights every client equally. An update of zero has no direction; its cosine counts as 0.

    Cost: one read of the weights.

    Returns:
        ``(K,)``, 0 for the same direction to 2 for the opposite.

    Raises:
        NotApplicableError: The round has one client only.
    """
    num_clients = len(evidence.record.clients)
    if num_clients < 2:
        raise NotApplicableError("cosine compares a client with the others; this round has one client only")
    sums = torch.zeros(3, num_clients, dtype=torch.float64, device=evidence.device)
    for block in update_blocks(evidence):
        others = block.sum(dim=0) - block  # (K, b); their mean has the same direction
        sums += torch.stack([(block * others).sum(dim=1), block.square().sum(dim=1), others.square().sum(dim=1)])
    product, own, rest = sums.cpu()
    lengths = (own * rest).sqrt()
    return 1 - torch.where(lengths > 0, product / lengths, 0.0).clamp(-1, 1)
