"""FLTracer: clients whose updates have unusual signs, ranks or last layers (Zhang et al., TIFS 2024, arXiv 2310.13424).

Three of the paper's features, each brought to one number a client by its first principal component over the round's
clients: signv, the signs of the update; sortv, of each parameter the client's rank among the clients; classv, the
update of the classifier. A number is judged by its modified z-score, 0.6745 times its distance from the clients'
median, in units of the median absolute deviation.

The fourth feature, featv, is left out: it takes rounds known to be clean, in which a Kalman filter is trained for each
client.
"""

from collections import defaultdict
from collections.abc import Iterator

import torch
from torch import Tensor

from tracefl.provenance import RoundRecord
from tracefl.questions.baselines.evidence import Evidence, NotApplicableError
from tracefl.questions.baselines.last_layer import last_layer_updates
from tracefl.questions.baselines.updates import update_blocks


def fltracer(evidence: Evidence) -> Tensor:
    """Suspect the client with the most unusual feature, on average over the rounds in which it took part.

    The paper suspects a client if any of its z-scores is beyond a threshold, which is 2.5 or 3 for all features; so a
    round's suspicion is the largest of the three, without sign, for a principal component has none of its own. The
    paper judges each round by itself and leaves open how rounds are put together; here it is the mean.

    Cost, for each round: one read of the weights, 2 K^2 P multiplications and K^2 P comparisons for P parameters.

    Returns:
        ``(K,)``, at least 0, in units of a standard deviation of normal features.

    Raises:
        NotApplicableError: A round has fewer than 3 clients, or the model no last linear layer of classes.
    """
    scores: dict[str, list[Tensor]] = defaultdict(list)
    for record in evidence.rounds:
        if len(record.clients) < 3:
            raise NotApplicableError(
                f"fltracer compares clients with their median; it needs at least 3, round {record.server_round} has "
                f"{len(record.clients)}"
            )
        unusual = torch.stack([modified_z(feature).abs() for feature in _features(evidence, record)])  # (3, K)
        for client, score in zip(record.clients, unusual.max(dim=0).values, strict=True):
            scores[client].append(score)
    return torch.stack([torch.stack(scores[client]).mean() for client in evidence.record.clients])


def modified_z(values: Tensor) -> Tensor:
    """Return modified z-scores of K numbers, ``(K,)`` (Iglewicz and Hoaglin 1993).

    Where more than half of the numbers are equal, the median absolute deviation is 0, and the mean one takes its place.
    """
    deviations = values - values.quantile(0.5)
    spread = deviations.abs().quantile(0.5) / 0.6745
    if spread == 0:
        spread = deviations.abs().mean() * 1.253314
    return deviations / spread if spread > 0 else torch.zeros_like(values)


def _features(evidence: Evidence, record: RoundRecord) -> Iterator[Tensor]:
    """Yield signv, sortv and classv of a round, each ``(K,)``."""
    num_clients = len(record.clients)
    products = torch.zeros(2, num_clients, num_clients, dtype=torch.float64, device=evidence.device)
    for block in update_blocks(evidence, record):
        signs = block.sign()
        for product, feature in zip(products, (signs - signs.mean(dim=0), _ranks(block)), strict=True):
            product.addmm_(feature, feature.t())
    classv = last_layer_updates(evidence, "fltracer", record).flatten(1)
    classv -= classv.mean(dim=0)
    for product in (*products.cpu(), classv @ classv.t()):
        yield _first_component(product)


def _ranks(block: Tensor) -> Tensor:
    """Return the ranks within each column less their mean, ``(K, b)``; equal numbers share the mean of their ranks.

    By comparing the clients two by two, which for tens of them takes a tenth of the time of sorting columns.
    """
    ranks = torch.zeros_like(block)
    for k, own in enumerate(block):
        for j in range(k):
            above = (own - block[j]).sign_().div_(2)
            ranks[k] += above
            ranks[j] -= above
    return ranks


def _first_component(products: Tensor) -> Tensor:
    """Return the scores on the first principal component, ``(K,)``, from the K centered vectors' inner products."""
    values, vectors = torch.linalg.eigh(products)
    score: Tensor = vectors[:, -1] * values[-1].clamp(min=0).sqrt()
    return score
