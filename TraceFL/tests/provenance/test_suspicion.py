"""Scores of suspicions: by hand, and by trying every way of breaking ties."""

import itertools

import pytest
import torch

from tracefl.provenance import SuspicionScores, score_suspicions


def test_scores_by_hand():
    suspicions = torch.tensor([[3.0, 1.0, 2.0, 0.0], [0.0, 1.0, 2.0, 3.0]])
    faulty = torch.tensor([True, False, False, True])
    # Row 1: ranks 1 and 4, one of the first two is faulty, 2 of 4 pairs. Row 2: ranks 4 and 1, the same.
    assert score_suspicions(suspicions, faulty) == SuspicionScores(1.0, 2.5, 0.5, 0.5)
    assert score_suspicions(suspicions[0], torch.tensor([False, True, False, False])) == SuspicionScores(
        0.0, 3.0, 0.0, pytest.approx(1 / 3)
    )


def test_equal_suspicions_are_chance():
    scores = score_suspicions(torch.zeros(3, 10), torch.arange(10) < 2)
    assert scores == SuspicionScores(pytest.approx(0.2), 5.5, pytest.approx(0.2), 0.5)


@pytest.mark.parametrize("num_faulty", [1, 2, 4])
def test_ties_are_broken_in_every_way(num_faulty):
    generator = torch.Generator().manual_seed(num_faulty)
    for _ in range(20):
        row = torch.randint(0, 3, (5,), generator=generator)
        faulty = torch.zeros(5, dtype=torch.bool)
        faulty[torch.randperm(5, generator=generator)[:num_faulty]] = True
        truth = faulty.tolist()
        right, ranks, precision, beaten = [], [], [], []
        for order in itertools.permutations(range(5)):  # whoever comes first in it wins a tie
            by_suspicion = sorted(order, key=lambda k: -int(row[k]))  # sorted keeps the order of equals
            place = {k: rank for rank, k in enumerate(by_suspicion, start=1)}
            right.append(truth[by_suspicion[0]])
            ranks += [place[k] for k in range(5) if truth[k]]
            precision.append(sum(truth[k] for k in by_suspicion[:num_faulty]) / num_faulty)
            beaten += [place[f] < place[h] for f in range(5) for h in range(5) if truth[f] and not truth[h]]
        found = score_suspicions(row, faulty)
        assert found.localization_accuracy == pytest.approx(sum(right) / len(right))
        assert found.mean_rank == pytest.approx(sum(ranks) / len(ranks))
        assert found.precision == pytest.approx(sum(precision) / len(precision))
        assert found.auroc == pytest.approx(sum(beaten) / len(beaten))


def test_all_faulty_has_no_auroc():
    assert score_suspicions(torch.tensor([1.0, 2.0]), torch.tensor([True, True])).auroc is None


@pytest.mark.parametrize(
    ("suspicions", "faulty"),
    [
        (torch.zeros(0, 2), torch.tensor([True, False])),
        (torch.zeros(1, 2), torch.tensor([False, False])),
        (torch.tensor([[0.0, float("nan")]]), torch.tensor([True, False])),
    ],
)
def test_what_cannot_be_scored_is_refused(suspicions, faulty):
    with pytest.raises(ValueError, match="at least one row of finite numbers"):
        score_suspicions(suspicions, faulty)
