"""FLDetector: clients whose updates are not as their last ones foretell (Zhang et al., KDD 2022, arXiv 2207.09209).

By the mean value theorem a client's update g in round t is near its last one plus H v, where v is what the global model
has moved since, w_t - w_(t-1), and H the integrated Hessian. L-BFGS estimates H, one for all clients, from the rounds
before: from how far the global model moved, s_j = w_j - w_(j-1), and by how much the averaged update changed,
y_j = g_j - g_(j-1). The paper takes gradients for updates; their sign, and a constant learning rate, change nothing.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from tracefl.provenance import RoundRecord
from tracefl.provenance.updates import weight_blocks
from tracefl.questions.baselines.evidence import Evidence, NotApplicableError


def fldetector(evidence: Evidence) -> Tensor:
    """Suspect the client whose updates differ most from the predicted ones, on average over rounds.

    The suspicion is the paper's suspicious score: the Euclidean distances of predicted and actual updates, divided by
    their sum over the round's clients, and their mean over the rounds that can be predicted, from the third on. The
    paper then divides the clients in two by k-means on these scores, which keeps their order. Its window is 10 rounds;
    here it is the history. Where the estimate's system is singular, its pseudo-inverse is taken.

    Cost, for each round: one read of its weights and the last round's; the global models of all rounds are held.

    Returns:
        ``(K,)``, 0 to 1.

    Raises:
        NotApplicableError: There are fewer than 2 earlier rounds, a client did not take part in one of the rounds, or
            the global model did not move.
    """
    evidence.check_history("fldetector", 2)
    records = list(evidence.rounds)  # their clients are read when asked for
    clients = list(evidence.record.clients)
    for record in records:
        absent = [client for client in clients if client not in record.clients]
        if absent:
            raise NotApplicableError(
                f"fldetector compares updates with those of earlier rounds; client {absent[0]} did not take part in "
                f"round {record.server_round}"
            )
    shares = []
    for t in range(2, len(records)):
        distances = _distances(evidence, records[: t + 1], clients)
        total = distances.sum()
        shares.append(distances / total if total > 0 else torch.full_like(distances, 1 / len(clients)))
    return torch.stack(shares).mean(dim=0)


def _distances(evidence: Evidence, records: Sequence[RoundRecord], clients: Sequence[str]) -> Tensor:
    """Return each client's distance of its last update from the predicted one, ``(K,)``.

    Everything is a linear combination of weights, read side by side a few parameters at a time.

    Args:
        evidence: The model, and the device.
        records: T rounds, at least 3; the last is the one that is predicted.
        clients: K clients that take part in the last two.
    """
    last = len(records) - 1
    starts = [record.previous_global for record in records]  # w_0 to w_t
    ends = [record.made for record in records[:-1]]
    rows = torch.eye(len(starts) + len(ends), dtype=torch.float64)
    w, g = rows[: len(starts)], rows[len(starts) :] - rows[:last]  # what each is made of
    moves = torch.cat([w[1:last] - w[: last - 1], g[1:] - g[:-1], w[last:] - w[last - 1 : last]])  # s, y and v
    products = torch.zeros(len(moves), len(moves), dtype=torch.float64, device=evidence.device)
    for _, _, block in weight_blocks(evidence.model, [*starts, *ends], evidence.device):
        vectors = moves.to(block) @ block
        products.addmm_(vectors, vectors.t())
    change = hessian_times(products.cpu()) @ moves  # H v, made of starts and ends

    sent = [records[t].clients[client] for t in (last, last - 1) for client in clients]
    squares = torch.zeros(len(clients), dtype=torch.float64, device=evidence.device)
    change = change - w[last - 1] + w[last]  # the actual update less the last one, but for what clients sent
    for _, _, block in weight_blocks(evidence.model, [*starts, *ends, *sent], evidence.device):
        own, before = block[len(rows) :].chunk(2)
        squares += (own - before - change.to(block) @ block[: len(rows)]).square_().sum(dim=1)
    return squares.sqrt().cpu()


def hessian_times(products: Tensor) -> Tensor:
    """Return H v as a combination of s_1 to s_m, y_1 to y_m and v, ``(2 m + 1,)``: L-BFGS (Byrd et al. 1994, Eq. 3.5).

    Args:
        products: ``(2 m + 1, 2 m + 1)`` inner products of these vectors, float64.

    Raises:
        NotApplicableError: The last s is 0.
    """
    m = len(products) // 2
    s_s, s_y = products[:m, :m], products[:m, m : 2 * m]
    if s_s[-1, -1] == 0:
        raise NotApplicableError("fldetector estimates a Hessian; the global model did not move between two rounds")
    sigma = s_y[-1, -1] / s_s[-1, -1]
    lower = s_y.tril(-1)
    system = torch.cat([torch.cat([sigma * s_s, lower], dim=1), torch.cat([lower.t(), -s_y.diag().diag()], dim=1)])
    scale = torch.cat([sigma.expand(m), torch.ones(m, dtype=torch.float64)])
    solved = torch.linalg.pinv(system, hermitian=True) @ (scale * products[: 2 * m, -1])
    return torch.cat([-scale * solved, sigma.view(1)])
