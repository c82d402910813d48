"""How well suspicions find the clients that are known to be faulty.

A suspicion is any number for each client of a round, the higher the more the client is held responsible: a
contribution, or the result of another rule. Ties count as broken at random: scores are means over all ways of breaking
them.
"""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class SuspicionScores:
    """How F faulty among K clients fare, means over the inputs.

    Attributes:
        localization_accuracy: How often the client with the highest suspicion is faulty, 0 to 1.
        mean_rank: Mean rank of the faulty clients, from 1 for the most suspicious.
        precision: Share of faulty clients among the F most suspicious, 0 to 1.
        auroc: How often a faulty client is more suspicious than an honest one, 0 to 1; 0.5 is chance. None where all
            clients are faulty.
    """

    localization_accuracy: float
    mean_rank: float
    precision: float
    auroc: float | None


def score_suspicions(suspicions: Tensor, faulty: Tensor) -> SuspicionScores:
    """Score suspicions against the truth.

    Args:
        suspicions: ``(M, K)`` finite numbers, one row per input; or ``(K,)`` for one row.
        faulty: ``(K,)`` bool, at least one of them.

    Raises:
        ValueError: There is no row, no faulty client, or a number that is not finite.
    """
    rows = suspicions.reshape(-1, len(faulty))  # (M, K)
    if not len(rows) or not faulty.any() or not rows.isfinite().all():
        raise ValueError(
            f"suspicions must be at least one row of finite numbers with a faulty client among its columns, got "
            f"{len(rows)} rows, {int(faulty.sum())} faulty clients, finite: {bool(rows.isfinite().all())}"
        )
    higher = (rows.unsqueeze(1) > rows.unsqueeze(2)).sum(dim=2).double()  # (M, K): how many are more suspicious
    equal = (rows.unsqueeze(1) == rows.unsqueeze(2)).sum(dim=2).double()  # itself included
    num_faulty = int(faulty.sum())
    honest_beaten = None
    if num_faulty < len(faulty):
        pairs = rows[:, faulty].unsqueeze(2), rows[:, ~faulty].unsqueeze(1)
        honest_beaten = float(((pairs[0] > pairs[1]).double() + (pairs[0] == pairs[1]).double() / 2).mean())
    return SuspicionScores(
        localization_accuracy=float(_in_the_first(1, higher, equal)[:, faulty].sum(dim=1).mean()),
        mean_rank=float((higher + (equal + 1) / 2)[:, faulty].mean()),
        precision=float(_in_the_first(num_faulty, higher, equal)[:, faulty].mean()),
        auroc=honest_beaten,
    )


def _in_the_first(n: int, higher: Tensor, equal: Tensor) -> Tensor:
    """Return the probability that each client is among the n most suspicious, ``(M, K)``."""
    return ((n - higher) / equal).clamp(0, 1)
