"""Krum, update norms and cosines: by hand, and against plain readings on whole vectors."""

import pytest
import torch
from torch.nn.utils import parameters_to_vector
from torch.testing import assert_close

from tests.helpers.evidence import cnn_evidence, point_evidence
from tracefl.questions.baselines import RULES, NotApplicableError, updates

LINE = [[0.0], [1.0], [3.0], [7.0], [20.0]]


def update_vectors(evidence):
    """Return the K updates as whole vectors, by loading each client into the model."""
    rows = []
    for weights in (evidence.record.previous_global, *evidence.record.clients.values()):
        evidence.model.load_state_dict(weights)
        rows.append(parameters_to_vector(evidence.model.parameters()).detach().clone())
    evidence.model.load_state_dict(evidence.record.global_weights)
    return torch.stack(rows[1:]) - rows[0]


@pytest.fixture(params=[2**19, 7])
def block_numbers(request, monkeypatch):
    monkeypatch.setattr("tracefl.provenance.updates._BLOCK", request.param)


@pytest.mark.usefixtures("block_numbers")
def test_distances_agree_with_whole_vectors():
    evidence = cnn_evidence(5)
    vectors = update_vectors(evidence)
    distances = updates.squared_distances(evidence)
    assert_close(distances, (vectors[:, None] - vectors[None]).square().sum(dim=2))
    assert torch.equal(distances, distances.t())


def test_krum_by_hand():
    # K = 5, f = 1: the 2 nearest of each. 0: 1, 9. 1: 1, 4. 3: 4, 9. 7: 16, 36. 20: 169, 289.
    assert RULES["krum"](point_evidence(LINE)).tolist() == pytest.approx([10, 5, 13, 52, 458])
    # f = 2: the nearest only.
    assert RULES["krum"](point_evidence(LINE, num_faults=2)).tolist() == pytest.approx([1, 1, 4, 16, 169])


def test_multi_krum_by_hand():
    # 20 goes first. Of 0, 1, 3, 7 with no fault left, 2 neighbours: 10, 5, 13, 52: 7 goes. Of 0, 1, 3 one: 1, 1, 4.
    # 0 and 1 tie, for the places 1 and 2.
    assert RULES["multi_krum"](point_evidence(LINE)).tolist() == [1.5, 1.5, 3, 4, 5]


def test_multi_krum_takes_ties_out_together():
    # 1 neighbour: 0, 0, 1 and 36, 36 for the pair that lies apart by 6, at the places 5 and 4.
    points = [[0.0, 0.0], [0.0, 0.0], [1.0, 0.0], [0.0, 50.0], [6.0, 50.0]]
    assert RULES["multi_krum"](point_evidence(points, num_faults=2)).tolist() == [1.5, 1.5, 3, 4.5, 4.5]


def test_krum_needs_neighbours():
    for rule in ("krum", "multi_krum"):
        with pytest.raises(NotApplicableError, match="3 faulty needs at least 6 clients in the round, this one has 5"):
            RULES[rule](point_evidence(LINE, num_faults=3))


@pytest.mark.usefixtures("block_numbers")
def test_update_norm_agrees_with_whole_vectors():
    evidence = cnn_evidence(4)
    norms = update_vectors(evidence).norm(dim=1)
    low, high = norms.sort().values[1:3]
    deviations = (norms - (low + high) / 2).abs()
    low, high = deviations.sort().values[1:3]
    assert_close(RULES["update_norm"](evidence), deviations / ((low + high) / 2))


def test_update_norm_by_hand():
    # Norms 5, 1, 2, 4, 13: median 4, deviations 1, 3, 2, 0, 9, their median 2.
    points = [[3.0, 4.0], [1.0, 0.0], [0.0, 2.0], [0.0, -4.0], [5.0, 12.0]]
    assert RULES["update_norm"](point_evidence(points)).tolist() == [0.5, 1.5, 1, 0, 4.5]
    # Most norms equal: deviations as they are.
    assert RULES["update_norm"](point_evidence([[2.0], [2.0], [-2.0], [5.0]])).tolist() == [0, 0, 0, 3]


@pytest.mark.usefixtures("block_numbers")
def test_cosine_agrees_with_whole_vectors():
    evidence = cnn_evidence(5)
    vectors = update_vectors(evidence)
    expected = []
    for k, own in enumerate(vectors):
        others = torch.cat([vectors[:k], vectors[k + 1 :]]).mean(dim=0)
        expected.append(1 - torch.dot(own, others) / (own.norm() * others.norm()))
    assert_close(RULES["cosine"](evidence), torch.stack(expected))


def test_cosine_by_hand():
    # The others' sums: (0, 0) for the first, which then counts as 0; (2, 0) and (0, 0); a zero update has no direction.
    assert_close(
        RULES["cosine"](point_evidence([[1.0, 0.0], [-1.0, 0.0], [2.0, 0.0], [0.0, 0.0]])),
        torch.tensor([0.0, 2.0, 1.0, 1.0], dtype=torch.float64),
    )
    with pytest.raises(NotApplicableError, match="one client only"):
        RULES["cosine"](point_evidence([[1.0]]))


def test_running_statistics_do_not_count():
    evidence = cnn_evidence(5)
    before = {name: RULES[name](evidence) for name in ("krum", "multi_krum", "update_norm", "cosine")}
    for weights in evidence.record.clients.values():
        weights["1.running_var"].mul_(1e6)
    for name, expected in before.items():
        assert torch.equal(RULES[name](evidence), expected)
