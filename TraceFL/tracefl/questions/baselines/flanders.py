"""FLANDERS: clients whose weights are not what the last rounds foretell (Gabrielli et al. 2023, arXiv 2303.16668).

A round's weights are a matrix X_t, a row for each of K clients and a column for each of d parameters, drawn once. A
matrix autoregression, X_t = A X_(t-1) B, is fitted to the earlier rounds by alternating least squares, and the round is
predicted with it.
"""

import random
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from tracefl.common.seeds import derive_seed
from tracefl.provenance import RoundRecord
from tracefl.questions.baselines.evidence import Evidence, NotApplicableError

_RIDGE = 1.0  # alpha and beta of Flower's baseline
_CLOSE = 1e-6  # a relative change of the prediction below which the fit has converged


def flanders(evidence: Evidence, num_parameters: int = 500, max_iterations: int = 100) -> Tensor:
    """Suspect the client whose weights are farthest from the predicted ones.

    The suspicion is the paper's anomaly score with the Euclidean distance; the paper keeps the clients with the lowest.
    As in Flower's ``baselines/flanders``, 500 parameters are drawn, the weights are scaled to 0..1 and both fits are
    ridge regressions of weight 1, at most 100 times in turn. The paper leaves open where they begin: here with B = 1.

    Cost: one read of each round's weights, and systems of at most T K equations for T rounds.

    Args:
        evidence: The round, and those before it.
        num_parameters: d; all of them where the model has fewer.
        max_iterations: Fits of A and B.

    Returns:
        ``(K,)``, at least 0, in units of the range of the weights.

    Raises:
        NotApplicableError: There are fewer than 2 earlier rounds, a client did not take part in one of the rounds, or
            all weights are equal.
    """
    evidence.check_history("flanders", 2)
    clients = list(evidence.record.clients)
    drawn = _draw(evidence, num_parameters)
    series = torch.stack([_rows(record, clients, drawn) for record in evidence.rounds])  # (T, K, d)
    low, high = series[:-1].aminmax()
    if low == high:
        raise NotApplicableError("flanders fits the clients' weights, and those of the earlier rounds are all equal")
    series = (series - low) / (high - low)
    predicted = forecast(series[:-1], max_iterations)
    distances: Tensor = torch.linalg.vector_norm(series[-1] - predicted, dim=1)
    return distances


def forecast(series: Tensor, max_iterations: int) -> Tensor:
    """Return the matrix that follows T others, ``(K, d)``: A X_T B.

    Args:
        series: ``(T, K, d)`` float64, at least 2 of them.
        max_iterations: Fits of A and B.
    """
    before, after = series[:-1], series[1:]
    b = torch.eye(series.shape[2], dtype=series.dtype)
    predicted = series[-1]
    for _ in range(max_iterations):
        a = _fit(before @ b, after)
        b = _fit((a @ before).mT, after.mT).t()
        last, predicted = predicted, a @ series[-1] @ b
        if (predicted - last).norm() <= _CLOSE * predicted.norm():
            break
    return predicted


def _fit(given: Tensor, wanted: Tensor) -> Tensor:
    """Return the A that minimizes the sum over t of |wanted_t - A given_t|^2, and its own squares: ridge regression."""
    x = given.transpose(0, 1).flatten(1)  # (p, n), the rounds side by side
    y = wanted.transpose(0, 1).flatten(1)
    fitted: Tensor
    if x.shape[0] <= x.shape[1]:
        fitted = torch.linalg.solve((x @ x.t()).add_(_ridge(x.shape[0])), y @ x.t(), left=False)
    else:  # the same with a system of n equations: x' (x x' + 1)^-1 = (x' x + 1)^-1 x'
        fitted = y @ torch.linalg.solve((x.t() @ x).add_(_ridge(x.shape[1])), x.t())
    return fitted


def _ridge(size: int) -> Tensor:
    return _RIDGE * torch.eye(size, dtype=torch.float64)


def _draw(evidence: Evidence, count: int) -> Mapping[str, Tensor]:
    """Draw parameters, the same in every round: each tensor's name, and positions within it."""
    sizes = {name: p.numel() for name, p in evidence.model.named_parameters() if p.is_floating_point()}
    total = sum(sizes.values())
    draw = random.Random(derive_seed(evidence.seed, "flanders"))
    chosen = torch.tensor(sorted(draw.sample(range(total), min(count, total))))
    found, begin = {}, 0
    for name, size in sizes.items():
        found[name] = chosen[(chosen >= begin) & (chosen < begin + size)] - begin
        begin += size
    return found


def _rows(record: RoundRecord, clients: Sequence[str], drawn: Mapping[str, Tensor]) -> Tensor:
    """Return the drawn weights of a round's clients, ``(K, d)`` float64 on the CPU."""
    rows = []
    for client in clients:
        if client not in record.clients:
            raise NotApplicableError(
                f"flanders predicts clients from earlier rounds; client {client} did not take part in round "
                f"{record.server_round}"
            )
        weights = record.clients[client]
        parts = [weights[name].detach().cpu().reshape(-1)[at].double() for name, at in drawn.items()]
        rows.append(torch.cat(parts))
    return torch.stack(rows)
