"""Exact Shapley values of the clients by averaging every subset of them again.

The game of Shapley (1953) has the round's clients as players. The value v(S) of a subset S is the centered logit (less
the mean of all logits) of the predicted class by the model

    W_S = sum over k in S of p_k W_k / sum over k in S of p_k,

buffers included; v of no client is that of the weights that the round started from. Then

    phi_k = sum over S without k of  |S|! (K - |S| - 1)! / K! * (v(S + k) - v(S)),

and the values of all clients sum to v(all) - v(none): what the round did to the logit.
"""

from collections.abc import Iterator
from math import comb

import torch
from torch import Tensor

from tracefl.baselines.evidence import Evidence, NotApplicableError
from tracefl.baselines.logits import finite_logits
from tracefl.provenance import RoundRecord
from tracefl.provenance.capture import undisturbed
from tracefl.provenance.counterfactual import blocks, centered_logit

MAX_CLIENTS = 10


@torch.no_grad()
def shapley(evidence: Evidence) -> Tensor:
    """Suspect the client with the highest Shapley value: to whom most of the predicted logit is due.

    Noise that was added to the average for privacy is no client's: it is in every subset's model, and in the one that
    the round started from.

    Cost: 2^K averages of the weights and 2^K forward passes: 1,024 for 10 clients. Memory: three models.

    Returns:
        ``(M, K)`` in logits.

    Raises:
        NotApplicableError: The round has more than ``MAX_CLIENTS`` clients, or a subset's model gives logits that are
            not finite.
    """
    num_clients = len(evidence.record.clients)
    if num_clients > MAX_CLIENTS:
        raise NotApplicableError(
            f"exact Shapley values take 2^K models of the round's K clients; they are computed up to {MAX_CLIENTS} "
            f"clients, this round has {num_clients}"
        )
    values = torch.empty(2**num_clients, len(evidence.predicted), dtype=torch.float64)  # v(S) of each input
    with undisturbed(evidence.model, evidence.device) as place:
        classes = evidence.predicted.to(place)
        for subset, weights in _subset_models(evidence.record):
            logits = finite_logits(evidence, weights, place, f"the model of the subset {subset:0{num_clients}b}")
            values[subset] = centered_logit(logits, classes).cpu()
    return values.t() @ shapley_coefficients(num_clients)


def shapley_coefficients(num_clients: int) -> Tensor:
    """Return how much v(S) counts in each client's value, ``(2^K, K)`` float64; bit k of row S says k is in S."""
    subsets = torch.arange(2**num_clients).unsqueeze(1)  # (2^K, 1)
    inside = (subsets >> torch.arange(num_clients)) & 1 == 1  # (2^K, K)
    sizes = inside.sum(dim=1)
    # By the size of the subset that the client is not in: s! (K - s - 1)! / K! = 1 / (K * binomial(K - 1, s)).
    weights = [1 / (num_clients * comb(num_clients - 1, size)) for size in range(num_clients)]
    weight = torch.tensor([0.0, *weights, 0.0], dtype=torch.float64)  # by size + 1; the ends are never used
    return torch.where(inside, weight[sizes].unsqueeze(1), -weight[sizes + 1].unsqueeze(1))


def _subset_models(record: RoundRecord) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """Yield every subset of the clients, as bits, and its model; the tensors are overwritten by the next.

    In Gray code order (Gray 1953) one client joins or leaves at a time, so each costs one addition to a running sum. In
    float64 its rounding after 2^10 steps, about 1e-13, is far below that of the float32 weights.
    """
    model = dict(record.global_weights)
    sums = {}
    for name, weights in record.global_weights.items():
        if weights.is_floating_point():
            sums[name] = torch.zeros(weights.shape, dtype=torch.float64, device=weights.device)
            model[name] = record.previous_global[name].clone(memory_format=torch.contiguous_format)
    noise = {}
    if record.before_noise is not None:
        noise = {name: record.global_weights[name] - record.before_noise[name] for name in sums}
    for name in noise:
        model[name] += noise[name]
    yield 0, model
    clients = list(record.clients.items())
    subset = 0
    for step in range(1, 2 ** len(clients)):
        turned = (step & -step).bit_length() - 1  # the lowest bit that is set
        subset ^= 1 << turned
        client_id, own = clients[turned]
        p = record.client_weights[client_id] * (1 if subset >> turned & 1 else -1)
        total = sum(record.client_weights[name] for k, (name, _) in enumerate(clients) if subset >> k & 1)
        for name, running in sums.items():
            for average, some, part in blocks(model[name], running, own[name]):
                some.add_(part.double().mul(p))  # not in place: the double of a double is itself
                average.copy_(some / total)
            if name in noise:
                model[name] += noise[name]
        yield subset, model
