"""Rules that any method must beat: own logit, last bias, most examples, chance."""

import torch
from torch import Tensor

from tracefl.provenance import Compute
from tracefl.provenance.capture import frozen_eval
from tracefl.provenance.inputs import read_batch
from tracefl.provenance.removal import logits_under
from tracefl.questions.baselines.evidence import Evidence, NotApplicableError
from tracefl.questions.baselines.last_layer import last_linear


@torch.no_grad()
def own_logit(evidence: Evidence) -> Tensor:
    """Suspect the client whose own model, before averaging, favours the predicted class most.

    The suspicion is that model's raw logit of the predicted class. Cost: one forward pass per client.

    Returns:
        ``(M, K)`` in logits.

    Raises:
        NotApplicableError: A client's own model gives logits that are not finite.
    """
    logits = []
    with frozen_eval(evidence.model, evidence.device) as place:
        classes = evidence.predicted.to(place).unsqueeze(1)  # (M, 1)
        batch = read_batch(evidence.model, evidence.inputs, place)
        for client_id, weights in evidence.record.clients.items():
            own = logits_under(evidence.model, weights, batch, Compute().forward_batch_size, place)  # (M, C)
            if not own.isfinite().all():
                raise NotApplicableError(f"the model of client {client_id!r} gives logits that are not finite")
            logits.append(own.gather(1, classes))
    return torch.cat(logits, dim=1).cpu()


def last_bias(evidence: Evidence) -> Tensor:
    """Suspect the client with the largest bias of the last layer for the predicted class.

    Cost: nothing; no input is used.

    Returns:
        ``(M, K)`` in logits.

    Raises:
        NotApplicableError: The model has no linear layer, or its last one has no bias or fewer outputs than classes.
    """
    name, layer = last_linear(evidence, "last_bias")
    if layer.bias is None:
        raise NotApplicableError(f"last_bias reads the last linear layer's bias; this model's {name!r} has none")
    parameter = f"{name}.bias" if name else "bias"
    biases = torch.stack([weights[parameter] for weights in evidence.record.clients.values()], dim=1)  # (C, K)
    return biases.detach().cpu().double()[evidence.predicted.cpu()]


def most_examples(evidence: Evidence) -> Tensor:
    """Suspect the client with the most training examples: p_k = n_k / sum(n), its weight in the average, ``(K,)``."""
    record = evidence.record
    return torch.tensor([record.client_weights[client_id] for client_id in record.clients], dtype=torch.float64)


def random_client(evidence: Evidence) -> Tensor:
    """Suspect all clients alike, ``(K,)``, in place of one draw, whose score is luck.

    Scores break ties in every way, so this one's are what a client drawn at random is expected to have.
    """
    return torch.zeros(len(evidence.record.clients), dtype=torch.float64)
