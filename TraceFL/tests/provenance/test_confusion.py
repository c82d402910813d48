"""Pushes from class to class, beside models that are built, run and averaged over one input at a time."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from tests.helpers.net_rounds import Net, P, Round, mean
from tracefl.provenance import RoundRecord, confusion, confusions, select_mispredicted
from tracefl.provenance.confusion import Confusions, standardized

N, C = 40, 4
INPUTS = torch.randn(N, 6, generator=torch.Generator().manual_seed(5))
LABELS = torch.randint(C, (N,), generator=torch.Generator().manual_seed(6))


@pytest.fixture
def made():
    """A round of three clients in float64, and its record."""
    made = Round(scale=1.0, dtype=torch.float64)
    return made, RoundRecord(1, made.clients, P, made.start, made.weights)


def logits(weights):
    model = Net().eval().double()
    model.load_state_dict(weights)
    with torch.no_grad():
        return model(INPUTS.double())


def slow(made):
    """Return each client's ``(N, C)`` effects, from models that are averaged anew."""
    whole = logits(made.weights)
    found = {}
    for client in P:
        others = {k: p / (1 - P[client]) for k, p in P.items() if k != client}
        found[client] = whole - logits(mean({k: made.clients[k] for k in others}, others))
    return found


def test_pushes_are_the_means_over_the_inputs_of_a_class(made):
    made, record = made
    found = confusions(made.model, record, INPUTS.double(), LABELS)
    effects = slow(made)
    assert found.client_ids == tuple(P)
    assert found.inputs.tolist() == [int((y == LABELS).sum()) for y in range(C)]
    for k, client in enumerate(P):
        for y, c in itertools.product(range(C), repeat=2):
            each = [float(effects[client][i, c] - effects[client][i, y]) for i in range(N) if LABELS[i] == y]
            assert float(found.push[k, y, c]) == pytest.approx(math.fsum(each) / len(each), abs=1e-9)
        for c in range(C):
            others = [float(found.push[k, y, c]) for y in range(C) if y != c]
            assert float(found.toward[k, c]) == pytest.approx(math.fsum(others) / len(others))


def test_alike_is_what_the_client_takes_from_the_difference_of_two_classes(made):
    """By the means of logit c less logit y over inputs of either class: their difference, with and without it."""
    made, record = made
    found = confusions(made.model, record, INPUTS.double(), LABELS)
    effects = slow(made)
    for k, client in enumerate(P):
        for y, c in itertools.combinations(range(C), 2):
            ahead = effects[client][:, c] - effects[client][:, y]
            apart = ahead[c == LABELS].mean() - ahead[y == LABELS].mean()
            assert float(found.alike[k, y, c]) == pytest.approx(-float(apart), abs=1e-9)
            assert found.alike[k, c, y] == found.alike[k, y, c]


def test_a_constant_of_each_class_makes_none_alike(made):
    """An honest client that holds more of a class raises its logit everywhere: that is no confusion."""
    made, record = made
    before = confusions(made.model, record, INPUTS.double(), LABELS)
    shifted = {n: t.clone() for n, t in made.clients["c"].items()}
    shifted["last.bias"] += torch.tensor([5.0, -2.0, 0.0, 1.0])
    clients = {**made.clients, "c": shifted}
    average = mean(clients, P)
    after = confusions(made.model, RoundRecord(1, clients, P, made.start, average), INPUTS.double(), LABELS)
    assert_close(after.alike, before.alike, rtol=0, atol=1e-9)
    assert float((after.push - before.push).abs().max()) > 0.1


def test_against_is_a_cosine_where_the_logit_depends_on_the_weights(made):
    made, record = made
    found = confusions(made.model, record, INPUTS.double(), LABELS)
    model = Net().eval().double()
    model.load_state_dict(made.weights)
    predicted = model(INPUTS.double()).argmax(dim=1)
    names = [name for name, _ in model.named_parameters()]
    for c in range(C):
        some = select_mispredicted(predicted != c, confusion._MOST_DERIVED)
        logits = model(INPUTS.double()[some])
        gradients = torch.autograd.grad((logits[:, c] - logits.mean(dim=1)).mean(), list(model.parameters()))
        sizes = torch.cat([g.abs().flatten() for g in gradients])
        weighed = {k: sizes * torch.cat([(made.clients[k][n] - made.start[n]).flatten() for n in names]) for k in P}
        for k, client in enumerate(P):
            others = sum(v for other, v in weighed.items() if other != client)
            expected = 1 - torch.cosine_similarity(weighed[client], others, dim=0)
            assert float(found.against[k, c]) == pytest.approx(float(expected), abs=1e-6)  # products in float32
    assert float(found.against.std()) > 0.01


def test_where_all_are_predicted_as_a_class_its_logit_is_derived_all_the_same(made):
    """As where a backdoor succeeds on all triggered inputs."""
    made, _ = made
    biased = {
        k: {n: t + 100 * torch.eye(C)[2].to(t) if n == "last.bias" else t for n, t in state.items()}
        for k, state in made.clients.items()
    }
    record = RoundRecord(1, biased, P, made.start, mean(biased, P))
    found = confusions(made.model, record, INPUTS.double(), LABELS)
    assert found.against.isfinite().all()
    assert found.suspicion.isfinite().all()


def test_the_model_is_as_it_was(made):
    made, record = made
    before = {n: t.clone() for n, t in made.model.state_dict().items()}
    confusions(made.model, record, INPUTS.double(), LABELS)
    assert all(torch.equal(t, before[n]) for n, t in made.model.state_dict().items())
    assert not any(p.grad is not None for p in made.model.parameters())
    assert all(p.requires_grad for p in made.model.parameters())


def test_suspicion_is_in_standard_deviations_over_the_clients(made):
    made, record = made
    found = confusions(made.model, record, INPUTS.double(), LABELS)
    for y, c in [(0, 1), (3, 2)]:
        parts = [(found.toward[:, c], 1), (found.alike[:, y, c], 1), (found.against[:, c], 0.5)]
        expected = [
            sum(w * (float(v[k]) - np.mean(v.tolist())) / np.std(v.tolist()) for v, w in parts) for k in range(len(P))
        ]
        assert found.suspicion[:, y, c].tolist() == pytest.approx(expected)


def test_equal_clients_are_not_suspected():
    assert standardized(torch.ones(3, 2)).tolist() == [[0, 0], [0, 0], [0, 0]]
    found = standardized(torch.tensor([[1.0], [torch.nan], [3.0]]))
    assert found[[0, 2]].flatten().tolist() == [-1, 1]
    assert found[1].isnan()


def test_clients_that_differ_by_rounding_are_equal():
    """Whatever client 1 adds to the pushes cancels in ``alike``, but for the last digits of its logits."""
    push = torch.zeros(3, 2, 2, dtype=torch.float64)
    push[1, 0, 1], push[1, 1, 0] = 4.0, -4.0 + 4e-8
    found = Confusions(("0", "1", "2"), push, torch.ones(3, 2) + 1e-8 * torch.rand(3, 2), torch.ones(2), 1.0)
    toward = [-0.5 * 2**0.5, 2**0.5, -0.5 * 2**0.5]  # towards class 1
    assert found.class_suspicion[:, 1].tolist() == pytest.approx([toward[0], 0.0, toward[2]])
    assert found.suspicion[:, 0, 1].tolist() == pytest.approx(toward)


def test_a_class_without_inputs_says_nothing_of_its_inputs(made):
    made, record = made
    labels = LABELS.clone()
    labels[labels == 2] = 1
    found = confusions(made.model, record, INPUTS.double(), labels)
    assert found.inputs[2] == 0
    assert found.push[:, 2].isnan().all()
    assert not found.push[:, [0, 1, 3]].isnan().any()
    assert found.suspicion.isfinite().all()


@pytest.mark.parametrize("labels", [LABELS[:-1], LABELS + 1, LABELS - 1])
def test_labels_are_the_inputs_classes(made, labels):
    made, record = made
    with pytest.raises(ValueError, match="labels must be 40 classes from 0 to 3, one for each input"):
        confusions(made.model, record, INPUTS.double(), labels)


def test_the_suspicion_for_a_class_is_the_lower_of_two_and_a_quarter_of_the_third(made):
    made, record = made
    found = confusions(made.model, record, INPUTS.double(), LABELS)
    for c in range(C):
        alike = np.array([z_scores(found.alike[:, y, c].tolist()) for y in range(C) if y != c])  # (C - 1, K)
        toward, against = (z_scores(values[:, c].tolist()) for values in (found.toward, found.against))
        for k in range(len(P)):
            both = min(toward[k], np.quantile(alike[:, k], 0.3))
            assert float(found.class_suspicion[k, c]) == pytest.approx(both + 0.25 * against[k])


def z_scores(values):
    return (np.array(values) - np.mean(values)) / np.std(values)


def test_a_class_without_inputs_tells_nothing_of_the_others(made):
    """Class 3 has none: the others are judged by each other, and it by nothing but its third part."""
    made, record = made
    some = LABELS != 3
    found = confusions(made.model, record, INPUTS.double()[some], LABELS[some])
    alike = np.array([z_scores(found.alike[:, y, 0].tolist()) for y in (1, 2)])
    toward, against = z_scores(found.toward[:, 0].tolist()), z_scores(found.against[:, 0].tolist())
    expected = np.minimum(toward, np.quantile(alike, 0.3, axis=0)) + 0.25 * against
    assert found.class_suspicion[:, 0].tolist() == pytest.approx(expected.tolist())
    assert found.class_suspicion[:, 3].tolist() == [0.0] * len(P)


def test_skill_is_by_how_much_the_model_is_right_beyond_chance(made):
    made, record = made
    predicted = logits(made.weights).argmax(dim=1)
    always = confusions(made.model, record, INPUTS.double(), predicted)
    assert always.skill == pytest.approx(1)
    found = confusions(made.model, record, INPUTS.double(), LABELS)
    right = [float((predicted[y == LABELS] == y).double().mean()) for y in range(C)]
    assert found.skill == pytest.approx((sum(right) / C - 1 / C) / (1 - 1 / C))


def test_without_labels_the_classes_are_those_predicted(made):
    made, record = made
    predicted = logits(made.weights).argmax(dim=1)
    known = confusions(made.model, record, INPUTS.double(), predicted)
    found = confusions(made.model, record, INPUTS.double(), None)
    assert_close(found.push, known.push, equal_nan=True)
    assert_close(found.class_suspicion, known.class_suspicion)
    assert math.isnan(found.skill)
