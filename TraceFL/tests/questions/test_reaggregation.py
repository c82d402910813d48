"""Rounds averaged again without some clients, against a slow reading of the definition and by hand."""

from collections.abc import Mapping

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from tracefl.provenance import RoundRecord
from tracefl.provenance.removal import weights_without
from tracefl.questions.reaggregation import reaggregate

P = {"0": 0.5, "1": 0.2, "2": 0.3}


def small():
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))


BUFFERS = {name for name, _ in small().named_buffers()}


def average(clients, p):
    first = next(iter(clients.values()))
    return {
        name: sum(p[k] * clients[k][name].double() for k in p).to(tensor) if tensor.is_floating_point() else tensor
        for name, tensor in first.items()
    }


def made_rounds(participants, seed=0):
    """FedAvg on random updates: a record a round, for the clients that take part in it."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    weights, records = small().state_dict(), []
    for number, ids in enumerate(participants, 1):
        total = sum(P[k] for k in ids)
        p = {k: P[k] / total for k in ids}
        clients = {}
        for k in ids:
            clients[k] = {
                name: tensor + 0.1 * torch.rand(tensor.shape, generator=generator)
                if tensor.is_floating_point()
                else tensor + 7
                for name, tensor in weights.items()
            }
        after = average(clients, p)
        records.append(RoundRecord(number, clients, p, weights, after))
        weights = after
    return records


def slow_replay(records, without, carry):
    """The definition, one number at a time."""
    replayed, found = None, []
    for record in records:
        replayed = dict(record.previous_global) if replayed is None else replayed
        others = [k for k in record.client_weights if k not in without]
        if others:
            share = sum(record.client_weights[k] for k in others)
            mean = {
                name: sum(record.client_weights[k] / share * record.clients[k][name].double() for k in others)
                for name in replayed
            }
            for name, previous in record.previous_global.items():
                if not previous.is_floating_point():
                    replayed[name] = record.global_weights[name]
                elif name in BUFFERS:
                    replayed[name] = mean[name]
                else:
                    replayed[name] = mean[name] + carry * (replayed[name].double() - previous.double())
        found.append({name: tensor.to(record.global_weights[name]) for name, tensor in replayed.items()})
    return found


ALL = ["012", "012", "012", "012"]
SOME = ["02", "01", "12", "2", "1", "02"]


@pytest.mark.parametrize("participants", [ALL, SOME])
@pytest.mark.parametrize("without", [("1",), ("0", "2"), ("0",)])
@pytest.mark.parametrize("carry", [0.0, 0.3, 1.0])
def test_the_definition(participants, without, carry):
    records = made_rounds(participants)
    expected = slow_replay(records, without, carry)
    found = list(reaggregate(records, without, BUFFERS, carry))
    assert [r.record.server_round for r in found] == list(range(1, len(records) + 1))
    for replayed, weights, record in zip(found, expected, records, strict=True):
        assert replayed.kept == tuple(k for k in record.clients if k not in without)
        assert replayed.removed == tuple(k for k in record.clients if k in without)
        for name, tensor in weights.items():
            if name in BUFFERS and not tensor.is_floating_point():
                continue
            assert_close(replayed.weights[name], tensor, rtol=0, atol=2e-7)
            assert replayed.weights[name].dtype == tensor.dtype


@pytest.mark.parametrize("participants", [ALL, SOME])
def test_without_nobody_the_run_itself(participants):
    records = made_rounds(participants)
    for replayed, record in zip(reaggregate(records, (), BUFFERS), records, strict=True):
        assert replayed.is_exact
        assert replayed.is_unchanged
        assert all(torch.equal(replayed.weights[name], tensor) for name, tensor in record.global_weights.items())


@pytest.mark.parametrize("without", [("1",), ("0", "2")])
def test_without_any_carry_each_round_is_the_exact_removal(without):
    records = made_rounds(ALL)
    for replayed, record in zip(reaggregate(records, without, BUFFERS, carry=0.0), records, strict=True):
        kept = {k: record.clients[k] for k in replayed.kept}
        total = sum(P[k] for k in kept)
        for name, tensor in average(kept, {k: P[k] / total for k in kept}).items():
            assert_close(replayed.weights[name], tensor, rtol=0, atol=2e-7)


def test_a_client_that_is_the_average_of_the_others_changes_nothing():
    # Whoever sends what the others' average is can go: W_n - W_{n-1} is the others' mean update in every round.
    records = []
    for record in made_rounds(ALL):
        p = {"0": 0.625, "2": 0.375}  # 0.5 and 0.3 of 0.8
        others = {k: record.clients[k] for k in p}
        clients = {**others, "1": average(others, p)}
        previous = records[-1].global_weights if records else record.previous_global
        records.append(RoundRecord(record.server_round, clients, P, previous, average(clients, P)))
    for replayed, record in zip(reaggregate(records, ("1",), BUFFERS), records, strict=True):
        assert replayed.removed == ("1",)
        for name, tensor in record.global_weights.items():
            assert_close(replayed.weights[name], tensor, rtol=0, atol=1e-6)


def test_the_first_round_without_a_client_is_its_exact_removal():
    records = made_rounds(["02", "012", "012"])
    first, second, third = reaggregate(records, ("1",), BUFFERS)
    assert (first.is_exact, first.is_unchanged, first.average_error) == (True, True, None)
    assert (second.is_exact, second.is_unchanged) == (True, False)
    assert not third.is_exact
    for name, tensor in weights_without(records[1], "1").items():
        assert_close(second.weights[name], tensor, rtol=0, atol=2e-7)
        assert torch.equal(first.weights[name], records[0].global_weights[name])


def test_numbers_by_hand():
    # Round 1, from 0: clients go to 1, 2 and 6 with p = 1/2, 1/4, 1/4, so W = 2.5. Without the last: 2/3 + 2/3 = 4/3.
    # Round 2, from 2.5: clients go to 3.5 and 4.5, p = 1/4, 3/4, so W = 4.25; without the last the first's +1: 7/3.
    # Round 3 has the last alone: nothing moves. Round 4, from 5: the first goes to 5.5, alone: 7/3 + 1/2 = 17/6.
    def record(number, previous, clients, p, after):
        clients = {k: {"w": torch.tensor([value])} for k, value in clients.items()}
        return RoundRecord(number, clients, p, {"w": torch.tensor([previous])}, {"w": torch.tensor([after])})

    records = [
        record(1, 0.0, {"0": 1.0, "1": 2.0, "2": 6.0}, {"0": 0.5, "1": 0.25, "2": 0.25}, 2.5),
        record(2, 2.5, {"0": 3.5, "2": 4.5}, {"0": 0.25, "2": 0.75}, 4.25),
        record(3, 4.25, {"2": 5.0}, {"2": 1.0}, 5.0),
        record(4, 5.0, {"0": 5.5}, {"0": 1.0}, 5.5),
    ]
    halved = [float(r.weights["w"]) for r in reaggregate(records, {"2"}, carry=0.5)]
    # Round 2: 3.5 + (4/3 - 2.5) / 2 = 35/12. Round 4: 5.5 + (35/12 - 5) / 2 = 107/24.
    assert halved == pytest.approx([4 / 3, 35 / 12, 35 / 12, 107 / 24])
    found = list(reaggregate(records, {"2"}, carry=1.0))
    assert [float(r.weights["w"]) for r in found] == pytest.approx([4 / 3, 7 / 3, 7 / 3, 17 / 6])
    assert [r.kept for r in found] == [("0", "1"), ("0",), (), ("0",)]
    assert [r.is_exact for r in found] == [True, False, False, False]
    assert [r.average_error for r in found[:3]] == pytest.approx([0, 0, 0], abs=1e-12)
    assert found[3].average_error is None


def test_noise_of_privacy_is_no_clients():
    plain, noisy = [], []
    for record in made_rounds(ALL):
        noise = {name: 0.05 * torch.ones_like(t) for name, t in record.global_weights.items() if name not in BUFFERS}
        deployed = {name: tensor + noise.get(name, 0) for name, tensor in record.global_weights.items()}
        shift = {name: sum((n[name] for n in plain), torch.zeros_like(w)) for name, w in noise.items()}
        clients = {k: {n: t + shift.get(n, 0) for n, t in c.items()} for k, c in record.clients.items()}
        start, before, after = (
            {n: t + shift.get(n, 0) for n, t in state.items()}
            for state in (record.previous_global, record.global_weights, deployed)
        )
        noisy.append(RoundRecord(record.server_round, clients, P, start, after, before))
        plain.append(noise)
    without_noise = list(reaggregate(made_rounds(ALL), ("1",), BUFFERS, carry=1.0))
    found = reaggregate(noisy, ("1",), BUFFERS, carry=1.0)
    for number, (replayed, quiet) in enumerate(zip(found, without_noise, strict=True), 1):
        for name, tensor in quiet.weights.items():
            added = 0.0 if name in BUFFERS else 0.05 * number
            assert_close(replayed.weights[name], tensor + added if added else tensor, rtol=0, atol=1e-5)
        assert replayed.average_error < 1e-5


def test_a_round_that_is_no_weighted_average_is_told():
    (record,) = made_rounds(["012"])
    median = {
        name: torch.stack([c[name] for c in record.clients.values()]).median(dim=0).values if name not in BUFFERS else t
        for name, t in record.global_weights.items()
    }
    (replayed,) = reaggregate([RoundRecord(1, record.clients, P, record.previous_global, median)], ("1",), BUFFERS)
    names = [name for name, tensor in median.items() if tensor.is_floating_point()]

    def norm(one, other):
        return sum(float((one[name].double() - other[name].double()).square().sum()) for name in names) ** 0.5

    assert replayed.average_error == pytest.approx(
        norm(median, record.global_weights) / norm(median, record.previous_global), rel=1e-3
    )
    assert replayed.average_error > 0.01


def test_clients_are_asked_for_once_and_only_where_one_is_left_out():
    asked = []

    class Watched(Mapping):
        def __init__(self, number, clients):
            self.number, self.clients = number, clients

        def __getitem__(self, key):
            asked.append((self.number, key))
            return self.clients[key]

        def __iter__(self):
            return iter(self.clients)

        def __len__(self):
            return len(self.clients)

    records = [
        RoundRecord(r.server_round, Watched(r.server_round, r.clients), r.client_weights, *w)
        for r in made_rounds(["02", "012", "02"])
        for w in [(r.previous_global, r.global_weights)]
    ]
    before = [{name: tensor.clone() for name, tensor in r.global_weights.items()} for r in records]
    list(reaggregate(records, ("1",), BUFFERS))
    assert asked == [(2, "0"), (2, "1"), (2, "2")]
    assert all(
        torch.equal(r.global_weights[n], t) for r, state in zip(records, before, strict=True) for n, t in state.items()
    )
