"""Bounds on a client's update and on its weight, by hand and over many drawn rounds."""

import random

import pytest
import torch
from torch.testing import assert_close

from tests.helpers.rounds_by_hand import Server, replied, trained
from tracefl.federation.averaging import like
from tracefl.federation.bounds import capped_counts
from tracefl.federation.participation import Participation
from tracefl.learning.privacy.settings import CentralPrivacySettings
from tracefl.provenance.norms import bound_of

pytestmark = pytest.mark.usefixtures("task")

IDS = ("0", "1", "2", "10")


def server(**plan):
    return Server(**({"clients_per_round": 4, "trainable": ("w",), "max_update_norm": 5.0} | plan))


def test_an_update_above_the_bound_is_scaled_down_to_it_and_stored_so(caplog):
    # Norms 1, 2, 3 and 1e30; the lower median is 2, so the last counts with 10: (0, 10) in its direction.
    replies = {"0": trained(0.0, 1e30), "1": trained(1.0, 0.0), "2": trained(2.0, 0.0), "10": trained(3.0, 0.0)}
    attacked = server()
    average = attacked.round(replies)
    assert_close(average["w"], torch.tensor([6 / 4, 10 / 4]))
    (outcome,) = attacked.told.outcomes
    assert_close(outcome.record.clients["0"]["w"], torch.tensor([0.0, 10.0]))
    words = "its update had a norm of 1e+30 and counts with 10, 5 times the round's median"
    assert outcome.capped == {"0": words}
    assert f"round=1 client 0 is capped: {words}" in caplog.messages
    assert (outcome.dropped, outcome.refused) == ({}, ())
    assert_close(outcome.record.global_weights["w"], torch.tensor([6 / 4, 10 / 4]))


def test_the_bound_is_of_the_update_and_not_of_the_weights():
    far = {"w": torch.tensor([100.0, 100.0])}
    replies = {k: trained(100.0, 101.0) for k in ("0", "1", "2")} | {"10": trained(100.0, 110.0)}
    capped = server()
    assert_close(capped.round(replies, weights=far)["w"], torch.tensor([100.0, (3 * 101 + 105) / 4]))
    assert list(capped.told.outcomes[0].capped) == ["10"]


def test_buffers_have_a_bound_of_their_own():
    start = {"w": torch.zeros(2), "mean": torch.zeros(1)}

    def reply(w, mean):
        return replied({"w": torch.tensor([w, 0.0]), "mean": torch.tensor([mean])})

    replies = {"0": reply(1.0, 1000.0), "1": reply(100.0, 1.0), "2": reply(1.0, 1.0), "10": reply(1.0, 1.0)}
    both = server(initial_weights=start)
    both.round(replies)
    (outcome,) = both.told.outcomes
    assert outcome.capped == {
        "0": "its change of the buffers had a norm of 1000 and counts with 5, 5 times the round's median",
        "1": "its update had a norm of 100 and counts with 5, 5 times the round's median",
    }
    assert outcome.record.clients["0"]["w"].tolist() == [1.0, 0.0]
    assert outcome.record.clients["1"]["mean"].tolist() == [1.0]


@pytest.mark.parametrize(
    ("clients", "largest", "plan"),
    [(IDS, 1e30, {"max_update_norm": None}), (IDS[:2], 1e30, {}), (IDS, 9.75, {})],
    ids=["no bound", "two replies", "within the bound"],
)
def test_where_nothing_is_out_of_bounds_nothing_changes(clients, largest, plan):
    free = server(**plan)
    free.round({k: trained(2.0, 0.0) for k in clients} | {"0": trained(largest, 0.0)})
    (outcome,) = free.told.outcomes
    assert outcome.capped == {}
    assert outcome.record.clients["0"]["w"].tolist() == torch.tensor([largest, 0.0]).tolist()


def test_a_buffer_that_most_leave_alone_stays_as_it_was():
    start = {"w": torch.zeros(2), "table": torch.ones(2)}
    honest = {k: replied({"w": torch.ones(2), "table": torch.ones(2)}) for k in ("1", "2", "10")}
    attacked = server(initial_weights=start)
    average = attacked.round({"0": replied({"w": torch.ones(2), "table": torch.full((2,), 9.0)}), **honest})
    assert_close(average["table"], torch.ones(2))
    words = "its change of the buffers had a norm of 11.31 and counts with 0, 5 times the round's median"
    assert attacked.told.outcomes[0].capped == {"0": words}


def test_whole_numbers_that_are_the_same_stay_so_in_the_average():
    numbers = torch.arange(1000)
    replies = {
        k: replied({"w": torch.ones(2), "table": numbers}, {"num-examples": n, "train-loss": 0.5})
        for k, n in (("0", 7), ("1", 11), ("2", 13), ("10", 1))
    }
    averaged = server(initial_weights={"w": torch.zeros(2), "table": numbers})
    averaged.round(replies, weights={"w": torch.zeros(2), "table": numbers})
    assert torch.equal(averaged.told.outcomes[0].record.global_weights["table"], numbers)


def test_the_next_round_starts_from_what_is_recorded_counters_included():
    start = {"w": torch.zeros(2), "counter": torch.tensor(0)}
    examples = {"0": 36, "1": 21, "10": 36}  # by which the average of 12s is 11.999999999999998
    state = {"w": torch.ones(2), "counter": torch.tensor(12)}
    replies = {k: replied(state, {"num-examples": n, "train-loss": 0.5}) for k, n in examples.items()}
    counted = server(initial_weights=start, max_update_norm=None)
    sent = counted.round(replies, weights=start)
    recorded = counted.told.outcomes[0].record.global_weights
    assert recorded["counter"] == 12
    for name, tensor in recorded.items():
        assert (sent[name].dtype, sent[name].tolist()) == (tensor.dtype, tensor.tolist())


def test_where_most_change_nothing_there_is_no_bound():
    assert bound_of([0.0, 0.0, 5.0], 5.0) is None
    assert bound_of([1.0, 2.0, 9.0, 9.0], 5.0) == 10.0
    assert bound_of([1.0, 2.0], 5.0) is None
    assert bound_of([1.0, 2.0, 3.0], None) is None


def test_central_privacy_clips_by_itself_and_the_buffers_stay_bounded():
    privacy = CentralPrivacySettings(noise_multiplier=0.0, clipping_norm=1e9, trace="deployed")
    start = {"w": torch.zeros(2), "mean": torch.zeros(1)}
    replies = {k: replied({"w": torch.tensor([1.0, 0.0]), "mean": torch.ones(1)}) for k in ("1", "2", "10")}
    outlier = {"0": replied({"w": torch.tensor([1000.0, 0.0]), "mean": torch.tensor([1000.0])})}
    private = server(privacy=privacy, initial_weights=start)
    private.round(replies | outlier)
    (outcome,) = private.told.outcomes
    assert_close(outcome.record.clients["0"]["w"], torch.tensor([1000.0, 0.0]))
    assert_close(outcome.record.clients["0"]["mean"], torch.tensor([5.0]))
    assert outcome.capped["0"].startswith("its change of the buffers had a norm of 1000")


def test_a_frozen_parameter_comes_back_as_it_was_sent():
    start = {"w": torch.zeros(2), "frozen": torch.ones(1)}
    honest = {k: replied({"w": torch.ones(2), "frozen": torch.ones(1)}) for k in ("1", "2")}
    changed = {"0": replied({"w": torch.ones(2), "frozen": torch.full((1,), 1.0001)})}
    fixed = server(initial_weights=start, frozen=("frozen",))
    fixed.round(honest | changed)
    assert fixed.told.outcomes[0].dropped["0"] == "other weights of frozen, which is not trained"


def test_a_client_that_says_it_has_10_to_the_9_examples_weighs_three_times_the_median():
    # Counts 10, 20, 30 and 10^9 with the lower median 20: the last counts as 60 of 120.
    replies = {k: trained(0.0, 0.0, examples=n) for k, n in (("1", 10), ("2", 20), ("10", 30))}
    liar = {"0": trained(1.0, 1.0, examples=10**9)}
    heavy = server(max_weight_multiple=3.0, max_update_norm=None)
    assert_close(heavy.round(replies | liar)["w"], torch.tensor([0.5, 0.5]))
    (outcome,) = heavy.told.outcomes
    assert outcome.record.client_weights == {"0": 60 / 120, "1": 10 / 120, "2": 20 / 120, "10": 30 / 120}
    assert outcome.capped == {"0": "its 1000000000 examples count as 60"}


def test_the_largest_share_holds_beside_clients_that_weigh_less():
    replies = {k: trained(0.0, 0.0, examples=100) for k in IDS}
    lighter = Participation(set(), {"1": 0.01, "2": 0.01, "10": 0.01})
    shared = server(max_weight=0.4, participation=lighter)
    shared.round(replies)
    (outcome,) = shared.told.outcomes
    assert_close(outcome.record.client_weights["0"], 0.4)
    assert list(outcome.capped) == ["0"]


def drawn_counts(seed):
    draw = random.Random(seed)
    return {k: int(10 ** draw.uniform(0, 12)) for k in range(draw.randint(1, 8))}


@pytest.mark.parametrize("seed", range(100))
def test_no_share_is_above_the_largest_and_who_is_below_keeps_its_count(seed):
    counts, share = drawn_counts(seed), random.Random(seed).uniform(0.01, 1)
    found = capped_counts(counts, None, share)
    total = sum(found.values())
    assert max(found.values()) / total <= max(share, 1 / len(counts)) * (1 + 1e-9)
    largest = max(found.values())
    assert all(found[k] == n or found[k] == largest < n for k, n in counts.items())


def test_numbers_within_the_bounds_stay_as_they_are():
    counts = drawn_counts(0)
    assert capped_counts(counts, None, None) == counts
    assert capped_counts(counts, None, 1.0) == counts
    even = dict.fromkeys(counts, 7)
    assert capped_counts(even, 3.0, 1.0) == even


def test_what_is_averaged_has_the_models_types():
    start = {"w": torch.zeros(2), "count": torch.tensor(3)}
    replies = {k: replied({"w": torch.ones(2), "count": torch.tensor(n)}) for k, n in (("1", 13), ("2", 4))}
    counting = server(initial_weights=start)
    counting.round(replies)
    (outcome,) = counting.told.outcomes
    assert outcome.record.global_weights["count"].tolist() == 8  # 8.5, which Flower averages to a fraction
    assert outcome.record.global_weights["count"].dtype == torch.int64
    assert like(counting.strategy._previous, start)["count"].tolist() == 3
