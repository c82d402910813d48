"""The strategies, fed by hand-made replies."""

import logging
from collections import Counter

import pytest
import torch
from flwr.app import Error, Message
from torch.testing import assert_close

from tests.helpers.rounds_by_hand import NODES, Server, failed, replied, trained, unreadable
from tracefl.errors import RoundFailedError
from tracefl.federation.participation import Participation
from tracefl.learning.privacy.settings import AdaptivePrivacySettings, CentralPrivacySettings

pytestmark = pytest.mark.usefixtures("task")


def test_the_average_and_the_outcome_are_those_by_hand():
    # (1 * (2, 4) + 3 * (6, 8)) / 4 = (5, 7); loss (1 * 0.2 + 3 * 1.0) / 4 = 0.8
    server = Server(clients_per_round=4)
    replies = {"10": trained(6.0, 8.0, examples=3, loss=1.0), "1": trained(2.0, 4.0, examples=1, loss=0.2)}
    assert_close(server.round(replies)["w"], torch.tensor([5.0, 7.0]))
    (outcome,) = server.told.outcomes
    assert list(outcome.record.clients) == ["1", "10"]
    assert outcome.record.client_weights == {"1": 0.25, "10": 0.75}
    assert outcome.train_loss == pytest.approx(0.8)
    assert_close(outcome.record.previous_global["w"], torch.zeros(2))
    assert_close(outcome.record.global_weights["w"], torch.tensor([5.0, 7.0]))
    assert outcome.dropped == dict.fromkeys(("0", "2"), "no reply before the time limit (strategy.timeout_seconds)")
    assert outcome.clipping_norm is None


def test_sampling_depends_on_the_seed_and_the_round_alone():
    first, again = Server(), Server()
    assert first.configure().keys() == again.configure().keys()
    for server_round in range(1, 9):
        first.configure(server_round)
    drawn = {clients for _, clients in first.told.sampled}
    assert len(drawn) > 1
    assert all(len(clients) == 2 and list(clients) == sorted(clients, key=int) for clients in drawn)


def test_rounds_are_counted_over_all_sessions():
    whole, resumed = Server(), Server(rounds_done=1)
    sent = resumed.configure(1)
    assert sent.keys() == whole.configure(2).keys()
    assert resumed.told.sampled[0][0] == 2
    assert {message.content.config_records["config"]["server-round"] for message in sent.values()} == {2}


def test_each_message_goes_to_the_clients_node_the_longest_job_first():
    server = Server(clients_per_round=4, num_examples={"0": 5, "1": 9, "2": 1, "10": 7})
    sent = server.configure()
    assert list(sent) == ["1", "10", "0", "2"]
    assert {client_id: message.metadata.dst_node_id for client_id, message in sent.items()} == NODES


def test_only_fedprox_sends_its_mu():
    sent = Server("fedprox", proximal_mu=0.25).configure()
    assert {message.content.config_records["config"]["proximal-mu"] for message in sent.values()} == {0.25}
    assert all(
        "proximal-mu" not in message.content.config_records["config"] for message in Server().configure().values()
    )


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (failed, "ValueError: no data"),
        (unreadable, "weights that cannot be read, first w: "),
        (trained(1.0, float("nan")), "weights that are not finite, first in w"),
        (trained(1.0, 1.0, 1.0), "weights of another shape or type, first w"),
        (trained(1.0, 1.0, examples=11), "it reports 11 examples, expected 10"),
    ],
)
def test_a_reply_that_cannot_be_averaged_is_dropped(reply, reason, caplog):
    server = Server(clients_per_round=4, num_examples={"0": 10})
    with caplog.at_level(logging.WARNING):
        average = server.round({"0": reply, "1": trained(3.0, 4.0)})
    assert_close(average["w"], torch.tensor([3.0, 4.0]))
    (outcome,) = server.told.outcomes
    assert outcome.dropped["0"].startswith(reason)
    assert f"round=1 client 0 is dropped: {outcome.dropped['0']}" in caplog.messages


def test_too_few_replies_fail_the_round_with_every_reason():
    server = Server(clients_per_round=4, min_clients=2)
    with pytest.raises(RoundFailedError, match=r"round 1: 1 of 4 clients answered.*client 1: ValueError: no data"):
        server.round({"0": trained(1.0, 1.0), "1": failed})
    assert server.told.outcomes == []


def test_an_excluded_client_is_not_sampled_and_another_weighs_less():
    server = Server(clients_per_round=4, participation=Participation({"2", "10"}, {"1": 0.5}))
    average = server.round({"0": trained(0.0, 3.0), "1": trained(3.0, 0.0)})
    assert server.told.sampled == [(1, ("0", "1"))]
    assert_close(average["w"], torch.tensor([1.0, 2.0]))
    assert server.told.outcomes[0].record.client_weights == {"0": 10 / 15, "1": 5 / 15}


def test_central_privacy_clips_the_clients_and_keeps_the_average_before_the_noise():
    privacy = CentralPrivacySettings(noise_multiplier=0.5, clipping_norm=1.0, trace="deployed")
    server = Server(clients_per_round=4, privacy=privacy, trainable=("w",))
    average = server.round({"0": trained(0.6, 0.8), "1": trained(30.0, 40.0)})
    (outcome,) = server.told.outcomes
    for weights in outcome.record.clients.values():
        assert_close(weights["w"], torch.tensor([0.6, 0.8]))
    assert_close(outcome.record.before_noise["w"], torch.tensor([0.6, 0.8]))
    assert_close(outcome.record.global_weights["w"], average["w"])
    assert not torch.allclose(average["w"], torch.tensor([0.6, 0.8]))
    assert outcome.clipping_norm == outcome.next_clipping_norm == 1.0


def test_a_tied_parameter_is_clipped_once_and_has_one_noise():
    privacy = CentralPrivacySettings(noise_multiplier=0.5, clipping_norm=1.0, trace="deployed")
    start = {"w": torch.zeros(2), "head": torch.zeros(2)}
    server = Server(
        clients_per_round=4, privacy=privacy, initial_weights=start, trainable=("w", "head"), tied={"head": "w"}
    )
    one = torch.tensor([0.6, 0.8])
    average = server.round(
        {k: replied({"w": factor * one, "head": factor * one}) for k, factor in (("0", 1), ("1", 50))}
    )
    (outcome,) = server.told.outcomes
    for weights in outcome.record.clients.values():
        assert_close(weights["w"], one)  # its norm is counted once
        assert torch.equal(weights["head"], weights["w"])
    assert torch.equal(average["head"], average["w"])
    assert torch.equal(outcome.record.before_noise["head"], outcome.record.before_noise["w"])
    assert not torch.allclose(average["w"], one)


NAN = {"0": trained(1.0, float("nan"))}


def test_a_client_refused_three_times_is_asked_no_more(caplog):
    server = Server(clients_per_round=4, participation=Participation(max_refusals=3))
    others = {"1": trained(1.0, 1.0), "2": failed}
    for server_round in (1, 2, 3):
        server.round(NAN | others, server_round)
    assert {outcome.refused for outcome in server.told.outcomes} == {("0",)}  # an error is no refused reply
    assert "round=3 client 0 was refused 3 times (strategy.max_refusals) and is asked no more" in caplog.messages
    server.round(NAN | others, 4)
    assert server.told.sampled[3] == (4, ("1", "2", "10"))
    assert server.told.outcomes[3].refused == ()


def test_without_max_refusals_it_is_asked_for_ever():
    server = Server(clients_per_round=4)
    for server_round in range(1, 6):
        server.round(NAN | {"1": trained(1.0, 1.0)}, server_round)
    assert server.told.sampled[-1] == (5, ("0", "1", "2", "10"))


def test_where_too_few_are_left_the_run_ends_and_names_the_refused():
    server = Server(clients_per_round=4, min_clients=4, participation=Participation({"0"}, {}, 1, Counter("0")))
    message = r"round 1: 3 clients can take part, strategy.min_clients is 4; refused strategy.max_refusals=1 .*client 0"
    with pytest.raises(RoundFailedError, match=message):
        server.configure()


@pytest.mark.parametrize(
    ("poisoned", "named"),
    [({"1"}, ("1",)), ({"0", "10"}, ("0", "10")), ({"0", "1", "2"}, ("0", "1", "2"))],
)
def test_who_makes_the_round_unusable_is_found_and_the_others_averaged(poisoned, named, caplog):
    def is_sound(
        weights,
    ):  # of a client whose first weight is 8, some of it stays in the average, however many are in it
        return bool(weights["w"][0] < 1)

    server = Server(clients_per_round=4, is_sound=is_sound)
    replies = {k: trained(8.0, 0.0) if k in poisoned else trained(0.0, float(k)) for k in ("0", "1", "2", "10")}
    average = server.round(replies)
    honest = [float(k) for k in replies if k not in poisoned]
    assert_close(average["w"], torch.tensor([0.0, sum(honest) / len(honest)]))
    (outcome,) = server.told.outcomes
    assert set(outcome.refused) == set(outcome.dropped) == set(named)
    assert outcome.evaluation.largest_logit == 1.0
    assert set(outcome.dropped.values()) == {"with it the round's model gives logits that are not finite or above 2^24"}
    assert server.plan.participation.refusals == dict.fromkeys(named, 1)


def test_a_round_that_nobody_in_particular_spoils_fails():
    server = Server(clients_per_round=4, is_sound=lambda weights: False)
    with pytest.raises(RoundFailedError, match=r"round 1: the average of 2 clients gives logits that are not finite"):
        server.round({"0": trained(1.0, 1.0), "1": trained(1.0, 1.0)})
    assert server.told.outcomes == []


def test_private_rounds_are_averaged_again_with_the_norm_that_they_began_with():
    privacy = AdaptivePrivacySettings(
        noise_multiplier=0.1,
        initial_clipping_norm=1.0,
        target_clipped_quantile=0.5,
        clip_norm_lr=0.2,
        clipped_count_stddev=0.1,
        trace="deployed",
    )
    plan = {"privacy": privacy, "trainable": ("w",), "initial_weights": {"w": torch.zeros(2), "b": torch.zeros(1)}}
    names = {"0": 1.0, "1": 2.0, "2": 3.0}
    replies = {k: replied({"w": torch.full((2,), n), "b": torch.zeros(1)}) for k, n in names.items()}
    attacker = {"10": replied({"w": torch.zeros(2), "b": torch.ones(1)})}
    attacked = Server(clients_per_round=4, is_sound=lambda weights: bool(weights["b"] == 0), **plan)
    alone = Server(clients_per_round=3, nodes=dict.fromkeys(names, 7), **plan)
    assert torch.equal(attacked.round(replies | attacker)["w"], alone.round(replies)["w"])
    assert attacked.told.outcomes[0].refused == ("10",)
    for outcomes in (attacked.told.outcomes, alone.told.outcomes):
        assert outcomes[0].clipping_norm == 1.0
    assert attacked.told.outcomes[0].next_clipping_norm == alone.told.outcomes[0].next_clipping_norm


def test_a_clients_words_are_short_and_on_one_line(caplog):
    def shouting(message):
        return Message(Error(1, "\x1b[31m" + "A\u202e\x00\n" * 10**6 + "B" * 10**7), reply_to=message)

    names = {"a\n" * 10**6: torch.ones(1)}
    server = Server(clients_per_round=4)
    server.round({"0": shouting, "1": replied(names), "2": trained(1.0, 1.0)})
    dropped = server.told.outcomes[0].dropped
    assert dropped["0"] == "B" * 300 + "..."
    assert dropped["1"].startswith("weights of another model, first a a a")
    assert all(len(reason) <= 303 and reason.isprintable() for reason in dropped.values())
    assert all(len(message) < 400 and message.isprintable() for message in caplog.messages)
