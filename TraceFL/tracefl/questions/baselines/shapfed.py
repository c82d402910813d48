"""ShapFed: class-specific contributions by the last layer (Tastan et al., IJCAI 2024, arXiv 2406.00569)."""

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from tracefl.questions.baselines.evidence import Evidence
from tracefl.questions.baselines.last_layer import last_layer_updates


def shapfed(evidence: Evidence) -> Tensor:
    """Suspect the client that ShapFed would weigh least.

    A client's class-specific Shapley value is approximated by the cosine of its last-layer update for the class,
    weights and bias, with that of the average; its contribution is the mean over classes, by which ShapFed-WA weighs it
    in the next average. The suspicion is 1 less that contribution.

    The paper keeps a moving average of the contributions over rounds; this is the round's own. The paper speaks of the
    last layer's gradients, its program takes the cosines of whole weights, all of which are near 1 after small steps;
    taken here are the updates. A zero update has the cosine 0.

    Cost: one read of the last layer.

    Returns:
        ``(K,)``, 0 for the average's direction in every class to 2 for the opposite.

    Raises:
        NotApplicableError: The model has no last linear layer of classes.
    """
    updates = last_layer_updates(evidence, "shapfed")  # (K, C, D + 1)
    record = evidence.record
    weights = torch.tensor([record.client_weights[client] for client in record.clients], dtype=torch.float64)
    average = torch.einsum("k,kcd->cd", weights / weights.sum(), updates)
    return 1 - cosine_similarity(updates, average.unsqueeze(0), dim=2, eps=1e-30).mean(dim=1)
