"""LFighter: the two classes whose neurons the clients pull most, and the clients that pull them another way.

Jebreel, Domingo-Ferrer, Sanchez and Blanco-Justicia 2022, arXiv 2207.01982, Algorithm 1, with the sums as in the
authors' program (github.com/najeebjebreel/LFighter).
"""

import torch
from torch import Tensor

from tracefl.common.imports import imported
from tracefl.common.seeds import derive_seed
from tracefl.questions.baselines.evidence import Evidence, NotApplicableError
from tracefl.questions.baselines.last_layer import last_layer_updates, last_linear


def lfighter(evidence: Evidence) -> Tensor:
    """Suspect the clients of the denser of two clusters of last-layer updates.

    The classes taken for a flip's source and target are the two with the largest sum over clients of |update of the
    class's weights| + |update of its bias|. The clients' weight updates for these two are divided in two by k-means.
    With n of K clients in a cluster, its dissimilarity is n / K times 1 less the mean, over its clients, of the lowest
    cosine with a client of it; the cluster where that is lower is taken for the attackers'. With up to two classes all
    of the layer is clustered.

    The paper leaves out a whole cluster. Here a client is the more suspicious the nearer it lies to the centre of the
    attackers' cluster rather than the other: distance to the other less distance to this one, above 0 for exactly the
    clients that the paper leaves out. A client alone in its cluster has the cosine 1 with it, itself.

    Cost: one read of the last layer, and k-means of K points.

    Returns:
        ``(K,)``, above 0 for those in the attackers' cluster.

    Raises:
        NotApplicableError: The model has no last linear layer of classes, or the round has fewer than 3 clients.
    """
    num_clients = len(evidence.record.clients)
    if num_clients < 3:
        raise NotApplicableError(
            f"lfighter divides the clients in two; it needs at least 3, this round has {num_clients}"
        )
    updates = last_layer_updates(evidence, "lfighter")  # (K, C, D + 1)
    _, layer = last_linear(evidence, "lfighter")
    weights, bias = updates[:, :, : layer.in_features], updates[:, :, layer.in_features :]
    if layer.out_features > 2:
        pull = (weights.norm(dim=2) + bias.abs().sum(dim=2)).sum(dim=0)  # (C,)
        weights = weights[:, pull.argsort(descending=True, stable=True)[:2]]
    points = weights.flatten(1)  # (K, 2 D)
    if (points == points[0]).all():
        return torch.zeros(num_clients, dtype=torch.float64)  # nothing tells the clients apart
    kmeans = imported("sklearn.cluster", "the rule lfighter").KMeans(
        n_clusters=2, n_init=10, random_state=derive_seed(evidence.seed, "lfighter")
    )
    members = torch.from_numpy(kmeans.fit_predict(points.numpy()))
    centres = torch.stack([points[members == cluster].mean(dim=0) for cluster in (0, 1)])
    bad = int(_dissimilarity(points, members == 1) < _dissimilarity(points, members == 0))
    distances = torch.cdist(points, centres)  # (K, 2)
    return distances[:, 1 - bad] - distances[:, bad]


def _dissimilarity(points: Tensor, members: Tensor) -> float:
    directions = torch.nn.functional.normalize(points[members], dim=1)
    lowest = (directions @ directions.t()).fill_diagonal_(1).min(dim=1).values
    return float(members.double().mean() * (1 - lowest.mean()))
