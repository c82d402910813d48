"""Answers whose first clients are there by their exact removal, against models averaged again one by one."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from tests.helpers.models import clients_near, model_and_inputs
from tracefl.errors import ModelMismatchError
from tracefl.provenance import Attribution, Compute, Method, RoundRecord, attribute_round, method, removal_effects
from tracefl.provenance.asking import answer_round
from tracefl.provenance.budget import Proofs, num_proven, removing_all_is_no_dearer
from tracefl.provenance.verification import ExactRemovals, verified

UNDOUBTED = Method(max_update_norm=None, max_estimate_error=None)
P = {"0": 0.4, "1": 0.3, "2": 0.2, "3": 0.1}


def round_of(model, p=P):
    clients = clients_near(model, len(p), scale=0.3)
    average = {
        name: sum(p[k] * clients[k][name] for k in p) if tensor.is_floating_point() else tensor
        for name, tensor in clients["0"].items()
    }
    record = RoundRecord(1, clients, p, {n: t.clone() for n, t in model.state_dict().items()}, average)
    model.load_state_dict(average)
    return record


@pytest.fixture
def cnn():
    torch.manual_seed(3)
    layers = (nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5))
    return nn.Sequential(*layers).double().eval(), torch.randn(6, 2, 6, 6, dtype=torch.float64)


def effect(model, record, x, predicted, left):
    """What leaving one client out takes from the predicted class's centered logit of one input."""

    def centered(weights):
        model.load_state_dict(weights)
        with torch.no_grad():
            logits = model(x.unsqueeze(0))[0]
        return float(logits[predicted] - logits.mean())

    rest = {k: p / (1 - record.client_weights[left]) for k, p in record.client_weights.items() if k != left}
    others = {
        name: sum(rest[k] * record.clients[k][name] for k in rest) if tensor.is_floating_point() else tensor
        for name, tensor in record.global_weights.items()
    }
    found = centered(record.global_weights) - centered(others)
    model.load_state_dict(record.global_weights)
    return found


def slow_reading(estimates, count, exact):
    """Check the first ``count``, then whoever is first and unchecked, until the first one is checked."""
    values, done = list(estimates), set()
    todo = sorted(range(len(values)), key=lambda k: -values[k])[:count]
    while todo:
        for k in todo:
            values[k] = exact[k]
            done.add(k)
        first = max(range(len(values)), key=lambda k: values[k])
        todo = [] if first in done else [first]
    return values, done


@pytest.mark.parametrize("count", [1, 2, 3, "all", 9])
def test_as_a_slow_reading_has_it(cnn, count):
    model, x = cnn
    record = round_of(model)
    estimate = attribute_round(model, record, x, torch.zeros(6, dtype=torch.int64), Method(verify=0))
    # Estimates of any quality: also some that are wrong about everything, so that many have to be checked.
    made_up = replace(estimate, contributions=torch.randn(6, 4, dtype=torch.float64) * 2)
    for given in (estimate, made_up):
        found = verified(given, ExactRemovals(model, record, x), Proofs(count), UNDOUBTED)
        for i in range(6):
            exact = [effect(model, record, x[i], int(given.predicted[i]), k) for k in P]
            wanted = 4 if count == "all" else min(count, 4)
            values, done = slow_reading(given.contributions[i].tolist(), wanted, exact)
            assert_close(found.contributions[i], torch.tensor(values, dtype=torch.float64))
            assert set(torch.nonzero(found.verified[i]).flatten().tolist()) == done
            first = values.index(max(values))
            assert first in done
            assert found.ranking(i)[0][0] == found.client_ids[first]
            assert found.responsible[i] == (found.client_ids[first] if values[first] > 1e-5 else None)
        assert_close(found.scores, found.contributions.softmax(dim=1))


def many_clients(model, count, twins=()):
    """A round of clients of different sizes; those of ``twins`` are alike in weights and size."""
    clients = clients_near(model, count, scale=0.5)
    sizes = {k: 1 + int(k) % 7 for k in clients}
    for k in twins:
        clients[k], sizes[k] = clients[twins[0]], sizes[twins[0]]
    p = {k: n / sum(sizes.values()) for k, n in sizes.items()}
    average = {
        name: sum(p[k] * clients[k][name] for k in p) if tensor.is_floating_point() else tensor
        for name, tensor in clients["0"].items()
    }
    model.load_state_dict(average)
    return RoundRecord(1, clients, p, average, average)


def test_few_clients_are_all_left_out_unless_told_otherwise(cnn):
    model, x = cnn
    record = round_of(model)
    found = attribute_round(model, record, x, torch.zeros(6, dtype=torch.int64), Method())
    exact = [[effect(model, record, x[i], int(found.predicted[i]), k) for k in P] for i in range(6)]
    assert_close(found.contributions, torch.tensor(exact, dtype=torch.float64))
    assert found.verified.all()


def test_of_many_clients_those_with_the_largest_means_are_left_out_for_all_inputs(cnn, monkeypatch):
    model, x = cnn
    record, labels = many_clients(model, 13), torch.zeros(6, dtype=torch.int64)
    assert not removing_all_is_no_dearer(13)
    estimate = attribute_round(model, record, x, labels, Method(verify=0))
    asked = []
    find = ExactRemovals.find
    monkeypatch.setattr(ExactRemovals, "find", lambda self, wanted: asked.append(wanted) or find(self, wanted))
    found = attribute_round(model, record, x, labels, UNDOUBTED)

    means = [sum(row[k] for row in estimate.contributions.tolist()) / 6 for k in range(13)]
    shared = sorted(range(13), key=lambda k: -means[k])[: num_proven(13)]
    assert asked[0].all(dim=0).nonzero().flatten().tolist() == sorted(shared)
    assert asked[0].sum() == 6 * len(shared)
    exact = [[effect(model, record, x[i], int(estimate.predicted[i]), k) for k in record.clients] for i in range(6)]
    values, done = estimate.contributions.tolist(), [set(shared) for _ in range(6)]
    new = [(i, k) for i in range(6) for k in shared]
    begun = True
    while new:  # the first two, leaders, and whoever is behind by less than half of the error of what is estimated
        for i, k in new:
            values[i][k] = exact[i][k]
            done[i].add(k)
        misses = [exact[i][k] - float(estimate.contributions[i, k]) for i in range(6) for k in done[i]]
        margin = 0.5 * (sum(miss**2 for miss in misses) / len(misses)) ** 0.5
        behind = [min(sorted(row)[-2] if begun else max(row), max(row) - margin) for row in values]
        begun = False
        new = [(i, k) for i in range(6) for k in range(13) if k not in done[i] and values[i][k] >= behind[i]]
    assert_close(found.contributions, torch.tensor(values, dtype=torch.float64))
    for i in range(6):
        assert set(torch.nonzero(found.verified[i]).flatten().tolist()) == done[i]
        assert found.ranking(i)[0][0] in found.verified_clients(i)
    assert not found.verified.all()


def test_a_few_removals_read_the_removed_clients_alone(cnn):
    model, x = cnn
    record = many_clients(model, 13)
    read = []

    class Clients(dict):
        def __getitem__(self, client_id):
            read.append(client_id)
            return super().__getitem__(client_id)

    removals = ExactRemovals(model, replace(record, clients=Clients(record.clients)), x, check=False)
    wanted = torch.zeros(6, 13, dtype=torch.bool)
    wanted[:, [3, 7]] = True
    removals.find(wanted)
    assert set(read) == {"3", "7"}
    for k in (3, 7):
        exact = [effect(model, record, x[i], int(removals.classes[i]), str(k)) for i in range(6)]
        assert_close(removals.effects[:, k], torch.tensor(exact, dtype=torch.float64))


def test_equal_clients_are_left_out_for_all_inputs_together(cnn):
    model, x = cnn
    labels = torch.zeros(6, dtype=torch.int64)
    record = many_clients(model, 13)
    means = attribute_round(model, record, x, labels, Method(verify=0)).contributions.mean(dim=0)
    last = means.argsort(descending=True)[num_proven(13) - 1]
    # Three more of the last of those left out: as many as it takes for them not to be told apart by their order.
    twins = (str(int(last)), *(str(int(k)) for k in means.argsort()[:3]))
    record = many_clients(model, 13, twins)
    found = attribute_round(model, record, x, labels, UNDOUBTED)
    columns = [int(k) for k in twins]
    assert_close(found.contributions[:, columns], found.contributions[:, columns[:1]].expand(-1, 4))
    assert (found.verified[:, columns] == found.verified[:, columns[:1]]).all()
    assert not found.verified.all()


def test_of_a_lone_input_those_with_the_largest_estimates_are_left_out(cnn):
    model, x = cnn
    record = many_clients(model, 13)
    found = attribute_round(model, record, x[:1], torch.zeros(1, dtype=torch.int64), UNDOUBTED)
    assert num_proven(13) <= int(found.verified.sum()) < 13


@pytest.mark.parametrize(
    "method",
    [
        Method(0.9, "none", "none", "predicted", also=()),  # artifact
        Method(0.9, "num_examples", "none", "predicted", also=()),  # paper
        Method(0.5, "none", "global", "centered", also=()),  # fault
        Method(layers=("4",)),
    ],
)
@pytest.mark.filterwarnings("ignore:not traced")
def test_what_is_no_estimate_of_the_removal_is_left_as_it_is(cnn, method):
    model, x = cnn
    record = round_of(model)
    found = attribute_round(model, record, x, torch.zeros(6, dtype=torch.int64), method)
    unverified = attribute_round(model, record, x, torch.zeros(6, dtype=torch.int64), replace(method, verify=0))
    assert torch.equal(found.contributions, unverified.contributions)
    assert found.verified is None


def test_by_layer_asks_for_an_estimate(cnn):
    model, x = cnn
    record = round_of(model)
    found = attribute_round(model, record, x, torch.zeros(6, dtype=torch.int64), Method(), by_layer=True)
    assert found.verified is None
    assert_close(found.by_layer.sum(dim=2), found.contributions)


def test_all_is_the_ground_truth_itself(family):
    model, inputs = model_and_inputs(family)
    record = round_of(model)
    labels = torch.zeros(3, dtype=torch.int64)
    found = attribute_round(model, record, inputs, labels, Method(verify="all"))
    assert found.verified.all()
    assert_close(found.contributions.double(), removal_effects(model, record, inputs), rtol=1e-5, atol=1e-6)


def test_the_ground_truth_is_not_estimated_first(cnn, monkeypatch):
    def fails(*_, **__):
        raise AssertionError("an estimate of what is found exactly anyway")

    model, x = cnn
    monkeypatch.setattr(method, "attribute_targets", fails)
    found = attribute_round(model, round_of(model), x, torch.zeros(6, dtype=torch.int64), Method(verify="all"))
    assert found.contributions.dtype == torch.float64
    assert_close(found.scores, found.contributions.softmax(dim=1))


def test_a_lone_client_is_not_left_out(cnn):
    model, x = cnn
    record = round_of(model, {"0": 1.0})
    found = attribute_round(model, record, x, torch.zeros(6, dtype=torch.int64), Method(verify="all"))
    assert found.verified is None
    assert found.verified_clients(0) == ()
    assert set(found.responsible) == {"0"}


def test_a_client_without_whom_the_model_is_broken_keeps_its_estimate(cnn):
    model, x = cnn
    record = round_of(model)
    for k, variance in {"0": -10.0, "1": 100.0, "2": -10.0, "3": -10.0}.items():
        record.clients[k]["1.running_var"].fill_(variance)  # their average is 23, and that of all but client 1 negative
    record.global_weights["1.running_var"].fill_(23)
    # Without client 1 they are negative still where one more of the others is left out: nobody alone is to blame.
    contributions = torch.tensor([[0.0, 9.0, 1.0, 2.0]]).double().expand(6, 4)
    estimate = Attribution(tuple(P), contributions, contributions.softmax(dim=1), model(x).argmax(dim=1))
    with pytest.warns(UserWarning, match="not verified: without client 1 the model gives logits that are not finite"):
        found = verified(estimate, ExactRemovals(model, record, x), Proofs(2), UNDOUBTED)
    assert not found.verified[:, 1].any()
    assert found.verified.tolist() == [[False, False, True, True]] * 6  # two, though one of the first two is lost
    assert (found.contributions[:, 1] == 9).all()
    with pytest.warns(UserWarning, match="not verified: without client 1 the model gives logits that are not finite"):
        found = attribute_round(model, record, x, torch.zeros(6, dtype=torch.int64), Method(verify="all"))
    assert found.verified.tolist() == [[True, False, True, True]] * 6
    assert found.prevented == {"1": None}


def test_the_client_that_prevents_a_removal_is_named_and_not_the_one_left_out(cnn):
    model, x = cnn
    record = round_of(model, dict.fromkeys(P, 0.25))
    for k, variance in {"0": 2.0, "1": 12.0, "2": -10.0, "3": 2.0}.items():
        record.clients[k]["1.running_var"].fill_(variance)  # their average is 1.5, and that of all but client 1 -2
    record.global_weights["1.running_var"].fill_(1.5)
    labels = torch.zeros(6, dtype=torch.int64)
    words = "not verified: without client 1 the model gives logits that are not finite, because of client 2"
    with pytest.warns(UserWarning, match=words):
        found = attribute_round(model, record, x, labels, Method(verify="all"))
    assert found.prevented == {"1": "2"}
    assert found.verified.tolist() == [[True, False, True, True]] * 6
    with pytest.warns(UserWarning, match=words):
        answer = answer_round(model, record, x, labels, Method(verify="all"))
    assert answer.notes == ("client 1 is not verified: client 2's weights prevent it",)
    assert answer.notes[0] in str(answer)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: weights.pop("4.bias"), r"client '2' lacks '4.bias' of the global model;"),
        (
            lambda weights: weights.update({"4.bias": torch.zeros(4)}),
            r"client '2' has '4.bias' in shape \(4,\), the global model in \(5,\)",
        ),
    ],
)
def test_a_client_of_another_model_is_named(cnn, change, message):
    model, x = cnn
    record = round_of(model)
    change(record.clients["2"])
    with pytest.raises(ModelMismatchError, match=message):
        attribute_round(model, record, x, torch.zeros(6, dtype=torch.int64), Method(verify="all"))


def test_what_is_no_estimate_of_the_removal_is_not_verified():
    with pytest.raises(
        ValueError, match="verify=2 checks what estimates the removal: .* got 0.9, none, none, label and null"
    ):
        Method(0.9, "none", "none", "label", verify=2)
    with pytest.raises(ValueError, match=r"layers=null; got 1, leave_one_out, global, centered and \['fc'\]"):
        Method(layers=("fc",), verify=1)


@pytest.mark.parametrize("verify", [-1, 2.5, True, "some", "auto"])
def test_a_number_of_clients_to_verify_that_is_none(verify):
    with pytest.raises(ValueError, match="verify must be a whole number of at least 0 or all, got"):
        Method(verify=verify)


def test_inputs_are_left_as_many_at_a_time_as_asked_for(cnn, monkeypatch):
    model, x = cnn
    record, sizes = round_of(model), []
    hook = model.register_forward_hook(lambda _, inputs, __: sizes.append(len(inputs[0])))
    attribute_round(
        model, record, x, torch.zeros(6, dtype=torch.int64), Method(verify=2), compute=Compute(batch_size=2)
    )
    hook.remove()
    assert max(sizes) == 2


def test_exact_removals_have_no_layers(cnn):
    model, x = cnn
    with pytest.raises(ValueError, match="by_layer=True divides estimates among layers"):
        attribute_round(model, round_of(model), x, torch.zeros(6, dtype=torch.int64), Method(verify=1), by_layer=True)
