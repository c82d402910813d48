import pytest
import torch

from tests.helpers.images import images
from tracefl.learning.examples import PIXELS
from tracefl.learning.faults import Fault, Trigger
from tracefl.learning.faults.changes import change_examples, changeable

LABELS = torch.tensor([0, 1, 2, 3] * 25)


def flip(share=1.0):
    return Fault("label_flip", (), 1, {1: 0, 2: 3}, share=share)


def test_a_full_flip_changes_every_matching_label_and_nothing_else():
    before = images(LABELS)
    after, index = change_examples(flip(), before, 4, seed=0)
    assert after.labels.tolist() == [{1: 0, 2: 3}.get(label, label) for label in LABELS.tolist()]
    assert index.tolist() == [i for i in range(100) if LABELS[i] in (1, 2)]
    assert torch.equal(before.labels, LABELS)
    assert after.features is before.features
    assert torch.equal(after.rows, before.rows)


@pytest.mark.parametrize(("share", "count"), [(0.1, 5), (0.3, 15), (0.001, 1)])
def test_a_share_flips_so_many_of_the_matching_examples(share, count):
    after, index = change_examples(flip(share), images(LABELS), 4, seed=0)
    assert len(index) == count
    assert index.tolist() == (after.labels != LABELS).nonzero().flatten().tolist()


def test_a_larger_share_flips_the_same_examples_and_more_and_the_seed_says_which():
    def flipped(share, seed):
        return set(change_examples(flip(share), images(LABELS), 4, seed)[1].tolist())

    assert flipped(0.1, 0) < flipped(0.3, 0) < flipped(1.0, 0)
    assert flipped(0.3, 0) == flipped(0.3, 0) != flipped(0.3, 1)


def test_redrawn_labels_are_of_the_other_classes_all_of_them():
    fault = Fault("random_labels", (), 1, share=1.0)
    labels = torch.full((3000,), 2)
    after, index = change_examples(fault, images(labels, size=1), 4, seed=0)
    counts = after.label_counts(4)
    assert len(index) == 3000
    assert counts[2] == 0
    assert (counts[torch.tensor([0, 1, 3])] - 1000).abs().max() < 100  # four standard deviations: 26 each
    half, index = change_examples(Fault("random_labels", (), 1, share=0.5), images(LABELS), 4, seed=0)
    assert len(index) == 50 == int((half.labels != LABELS).sum())


def test_a_backdoor_marks_a_share_of_the_other_classes_and_gives_them_its_own():
    fault = Fault("backdoor", (), 1, target=3, trigger=Trigger(size=2), share=0.4)
    before = images(LABELS)
    after, index = change_examples(fault, before, 4, seed=0)
    assert len(index) == 30  # of 75
    assert 3 not in LABELS[index]
    assert (after.labels[index] == 3).all()
    white = (after.features[PIXELS][:, :, 4:, 4:] == 255).all(dim=(1, 2, 3))
    assert white.nonzero().flatten().tolist() == index.tolist()
    rest = torch.ones(100, dtype=torch.bool)
    rest[index] = False
    assert torch.equal(after.labels[rest], LABELS[rest])
    assert torch.equal(after.features[PIXELS][rest], before.features[PIXELS][rest])


def test_what_a_fault_can_change():
    labels = torch.tensor([0, 1, 2, 1])
    assert changeable(flip(), labels).tolist() == [1, 2, 3]
    assert changeable(Fault("backdoor", (), 1, target=1, trigger=Trigger(size=1)), labels).tolist() == [0, 2]
    for name in ("random_labels", "weight_noise", "free_rider"):
        assert changeable(Fault(name, (), 1), labels).tolist() == [0, 1, 2, 3]
