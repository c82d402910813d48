"""The strategies, fed by hand-made replies."""

import logging

import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.supercore.task_identity import TaskIdentity
from torch.testing import assert_close

from tests.helpers.plans import Told, make_hooks, make_plan
from tracefl.errors import RoundFailedError
from tracefl.federation.participation import Participation
from tracefl.federation.strategy import STRATEGIES
from tracefl.learning.privacy.settings import CentralPrivacySettings

NODES = {"0": 7, "1": 8, "2": 7, "10": 8}


@pytest.fixture(autouse=True)
def task(monkeypatch):
    """Messages name the task that makes them; here none runs."""
    for part in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, part, 1)


class Server:
    """A strategy, and what it told its hooks; ``round`` runs one round with the replies that are given."""

    def __init__(self, strategy="fedavg", **plan):
        self.told = Told()
        self.plan = make_plan(strategy=strategy, **plan)
        self.strategy = STRATEGIES[strategy](self.plan, make_hooks(self.told), lambda: NODES)

    def configure(self, server_round=1, weights=None):
        arrays = ArrayRecord(self.plan.initial_weights if weights is None else weights)
        sent = list(self.strategy.configure_train(server_round, arrays, ConfigRecord({"job": "{}"}), None))
        for number, message in enumerate(sent):
            message.metadata.__dict__["_message_id"] = f"m{number}"
        return {message.content.config_records["config"]["client-id"]: message for message in sent}

    def round(self, replies, server_round=1):
        """``replies``: client id to a function of its message; clients without one stay silent."""
        sent = self.configure(server_round)
        answers = [replies[client_id](message) for client_id, message in sent.items() if client_id in replies]
        arrays, _ = self.strategy.aggregate_train(server_round, answers)
        return arrays.to_torch_state_dict()


def trained(*weights, examples=10, loss=0.5):
    def reply(message):
        content = {
            "arrays": ArrayRecord({"w": torch.tensor(weights)}),
            "metrics": MetricRecord({"num-examples": examples, "train-loss": loss}),
            "client": ConfigRecord({"client-id": message.content.config_records["config"]["client-id"]}),
        }
        return Message(RecordDict(content), reply_to=message)

    return reply


def failed(message):
    return Message(Error(1, "Traceback\nValueError: no data"), reply_to=message)


def unreadable(message):
    reply = trained(1.0, 1.0)(message)
    array = Array("float32", (2,), "numpy.ndarray", b"no array")
    reply.content["arrays"] = ArrayRecord({"w": array})
    return reply


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
        (unreadable, "weights that cannot be read: "),
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
