"""Krum: clients far from their nearest neighbours (Blanchard, El Mhamdi, Guerraoui and Stainer, NeurIPS 2017)."""

import torch
from torch import Tensor

from tracefl.questions.baselines.evidence import Evidence, NotApplicableError
from tracefl.questions.baselines.updates import squared_distances


def krum(evidence: Evidence) -> Tensor:
    """Suspect the client with the highest Krum score, which Krum would be the last to choose.

    With f of K clients faulty (``evidence.num_faults``), a client's score is the sum of the squared distances of its
    update to the K - f - 2 nearest others. Krum's guarantee requires K > 2 f + 2; the score needs K > f + 2. Cost: K^2
    P multiplications for P parameters.

    Returns:
        ``(K,)``, at least 0.

    Raises:
        NotApplicableError: The round has fewer than f + 3 clients.
    """
    _check(evidence)
    distances = squared_distances(evidence)
    return krum_scores(distances, len(distances) - evidence.num_faults - 2)


def multi_krum(evidence: Evidence) -> Tensor:
    """Suspect clients in the order in which an iterated Krum takes them out.

    The client with the highest Krum score is taken out and the rest are scored anew with one fault fewer (none once f
    are out, and at least one neighbour), down to the last client. Blanchard's Multi-Krum scores once and keeps the
    clients with the lowest scores, which orders them as ``krum`` does; here a client that is out no longer vouches for
    others. Clients with equal scores are taken out together. Cost: that of ``krum``, plus K^2 log K per client for the
    scores.

    Returns:
        ``(K,)``: K for the first to be taken out, 1 for the last; ties get the mean of their places.

    Raises:
        NotApplicableError: The round has fewer than f + 3 clients.
    """
    _check(evidence)
    distances = squared_distances(evidence)
    left = torch.arange(len(distances))
    faults = evidence.num_faults
    suspicions = torch.zeros(len(distances), dtype=torch.float64)
    while len(left) > 1:
        scores = krum_scores(distances[left][:, left], max(len(left) - faults - 2, 1))
        worst = scores == scores.max()
        taken = int(worst.sum())
        suspicions[left[worst]] = len(left) - (taken - 1) / 2
        left = left[~worst]
        faults = max(faults - taken, 0)
    suspicions[left] = 1.0
    return suspicions


def krum_scores(distances: Tensor, num_neighbours: int) -> Tensor:
    """Return the sums of the distances to the nearest others, ``(K,)``, from symmetric ``(K, K)`` distances."""
    others = distances.clone().fill_diagonal_(torch.inf)
    return others.sort(dim=1).values[:, :num_neighbours].sum(dim=1)


def _check(evidence: Evidence) -> None:
    num_clients, faults = len(evidence.record.clients), evidence.num_faults
    if num_clients < faults + 3:
        raise NotApplicableError(
            f"Krum's score with {faults} faulty needs at least {faults + 3} clients in the round, this one has "
            f"{num_clients}"
        )
