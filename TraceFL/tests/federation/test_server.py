"""Who is which client, with a grid that has nodes but no network."""

import functools
import json
import logging
import time
from types import SimpleNamespace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import ConfigRecord, Error, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supercore.task_identity import TaskIdentity

from tracefl.errors import RoundFailedError
from tracefl.federation import server, supernodes
from tracefl.federation.identities import fingerprint
from tracefl.federation.participation import Participation
from tracefl.federation.server import Federation
from tracefl.federation.supernodes import Deployment


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Messages name the task that makes them; here none runs. And nobody is waited for."""
    for part in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, part, 1)
    for module in (server, supernodes):
        monkeypatch.setattr(module, "POLL_SECONDS", 0.0)
        monkeypatch.setattr(module, "CONNECT_SECONDS", 0.2)
    monkeypatch.setattr(supernodes, "ROSTER_SECONDS", 0.0)
    monkeypatch.setattr(supernodes, "ANSWER_SECONDS", 0.1)


@functools.cache
def key(number):
    return public_key_to_bytes(ec.derive_private_key(number, ec.SECP384R1()).public_key())


class Nodes:
    """Nodes by id: what each answers to the question who it is; an exception is an error's reason.

    Args:
        answers: Each node's.
        names: Those with which keys were registered, by node.
    """

    def __init__(self, answers, names=()):
        self.answers = dict(answers)
        self.names = dict(names)
        self.keys = {}  # of nodes whose key is another than their id's
        self.questions = []
        self.silent = set()  # messages without an answer so far
        self._replies = {}

    def get_node_ids(self):
        return list(self.answers)

    def get_nodes(self):
        return [
            SimpleNamespace(
                node_id=node,
                registered_at=f"2026-01-{node:02}",
                public_key=key(self.keys.get(node, node)),
                name=self.names.get(node, ""),
            )
            for node in reversed(self.answers)
        ]

    def push_messages(self, messages):
        ids = []
        for message in messages:
            node = message.metadata.dst_node_id
            self.questions.append((node, json.loads(message.content.config_records["config"]["job"])))
            answer = self.answers[node]
            content = answer if isinstance(answer, Error) else RecordDict({"client": ConfigRecord(answer)})
            message.metadata.__dict__["_message_id"] = f"m{len(self.questions)}"
            ids.append(message.metadata.message_id)
            self._replies[ids[-1]] = Message(content, reply_to=message)
        return ids

    def pull_messages(self, ids):
        return [self._replies.pop(each) for each in ids if each in self._replies and each not in self.silent]


def who(client_id="", counts=(1, 2)):
    return {"client-id": client_id, "label-counts": list(counts)}


def hooks(joined):
    return SimpleNamespace(on_joined=lambda client_id, client: joined.append((client_id, list(client.counts))))


def counts_of(clients):
    return {client_id: list(client.counts) for client_id, client in clients.items()}


QUESTION = '{"batch_size": 4, "num_classes": 2}'
PLAN = SimpleNamespace(min_clients=1, client_ids=("0", "2", "5", "6", "9"), participation=Participation())


def test_a_simulations_nodes_share_the_clients():
    federation = Federation(Nodes({11: None, 7: None}))
    assert federation._find_clients(PLAN, None) == {"0": 7, "2": 11, "5": 7, "6": 11, "9": 7}
    with pytest.raises(RoundFailedError, match="the simulation has no node after"):
        Federation(Nodes({}))._find_clients(PLAN, None)


def test_supernodes_are_named_by_their_configuration_and_else_in_order_of_arrival():
    nodes = Nodes({1: who(), 2: who("1", (7, 0)), 3: who(), 4: who("0")})
    deployment = Deployment(nodes)
    met = deployment.gather(4, QUESTION, {})
    assert deployment._present() == {"1": 2, "0": 4, "2": 1, "3": 3}
    assert counts_of(met) == {"1": [7, 0], "0": [1, 2], "2": [1, 2], "3": [1, 2]}
    assert {client_id: client.key for client_id, client in met.items()} == {
        client_id: fingerprint(key(node)) for client_id, node in deployment._present().items()
    }
    assert nodes.questions == [(node, json.loads(QUESTION)) for node in (1, 2, 3, 4)]


def test_who_comes_late_joins_and_who_is_gone_is_not_asked_for():
    nodes = Nodes({1: who("0"), 2: who("1")})
    deployment, joined = Deployment(nodes), []
    deployment.gather(2, QUESTION, {})
    assert deployment._find_clients(PLAN, hooks(joined)) == {"0": 1, "1": 2}
    assert joined == []
    del nodes.answers[2]
    nodes.answers[3] = who("2", (0, 9))
    assert deployment._find_clients(PLAN, hooks(joined)) == {"0": 1, "2": 3}
    nodes.answers[4], nodes.keys[4] = who("1", (5, 5)), 2  # its key was registered anew, as another node
    assert deployment._find_clients(PLAN, hooks(joined)) == {"0": 1, "1": 4, "2": 3}
    assert joined == [("2", [0, 9]), ("1", [5, 5])]
    assert [node for node, _ in nodes.questions] == [1, 2, 3, 4]


def test_who_is_excluded_makes_no_round_possible():
    nodes = Nodes({1: who("0"), 2: who("1")})
    deployment = Deployment(nodes)
    deployment.gather(2, QUESTION, {})
    plan = SimpleNamespace(min_clients=2, participation=Participation(excluded={"0", "7"}))
    with pytest.raises(RoundFailedError, match="1 of 2 SuperNodes are there after"):
        deployment._find_clients(plan, hooks([]))
    nodes.answers[3] = who("2")
    assert deployment._find_clients(plan, hooks([])) == {"0": 1, "1": 2, "2": 3}


def test_who_cannot_take_part_is_said_once(caplog):
    nodes = Nodes(
        {
            1: who("0"),
            2: who("0"),
            3: who("minus one"),
            4: who("100000"),
            5: Error(1, "<class 'tracefl.errors.ConfigError'>:<'this SuperNode has no data'>"),
        }
    )
    deployment = Deployment(nodes)
    with caplog.at_level(logging.WARNING), pytest.raises(RoundFailedError, match=r"1 of 2 SuperNodes are there after"):
        deployment.gather(2, QUESTION, {})
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 4
    assert "a SuperNode cannot take part: this SuperNode has no data" in said
    assert (
        f"a SuperNode cannot take part: it is not client 0: that is key {fingerprint(key(1))}, its own is "
        f"{fingerprint(key(2))}; a client keeps its id by its key, --auth-supernode-private-key"
    ) in said
    assert sum("its partition-id must be 0 to 99999, got" in line for line in said) == 2


def refused(caplog):
    """Return who was refused since the last call, each in the words that the log has of it."""
    said = [record.getMessage().removeprefix("a SuperNode cannot take part: ") for record in caplog.records]
    caplog.clear()
    return [line.partition(";")[0] for line in said if line.startswith("it")]


def test_an_id_is_its_first_keys_also_while_that_is_away(caplog):
    nodes = Nodes({1: who("0", (1, 0)), 5: who("5")})
    deployment, joined = Deployment(nodes), []
    deployment.gather(2, QUESTION, {})
    nodes.answers[2] = who("0", (2, 0))
    assert deployment._find_clients(PLAN, hooks(joined)) == {"0": 1, "5": 5}
    del nodes.answers[1]
    nodes.answers[3] = who("0", (3, 0))
    assert deployment._find_clients(PLAN, hooks(joined)) == {"5": 5}
    assert joined == []
    first, *others = [fingerprint(key(n)) for n in (1, 2, 3)]
    assert refused(caplog) == [f"it is not client 0: that is key {first}, its own is {other}" for other in others]
    nodes.answers[1] = who("0", (4, 0))
    assert deployment._find_clients(PLAN, hooks(joined)) == {"0": 1, "5": 5}
    assert joined == [("0", [4, 0])]


def test_who_is_excluded_cannot_come_back_with_another_id(caplog):
    nodes = Nodes({1: who("0"), 2: who("1"), 3: who("")})
    deployment, joined = Deployment(nodes), []
    deployment.gather(3, QUESTION, {})
    participation = Participation(excluded={"1", "2"})
    plan = SimpleNamespace(min_clients=1, participation=participation)
    for node in (2, 3):
        del nodes.answers[node]
    deployment._find_clients(plan, hooks(joined))
    nodes.answers |= {2: who("7"), 3: who("8")}
    assert deployment._find_clients(plan, hooks(joined)).keys() - participation.excluded == {"0"}
    assert joined == []
    assert refused(caplog) == [
        f"its key {fingerprint(key(node))} is client {had} and says it is client {says}"
        for node, had, says in ((2, "1", "7"), (3, "2", "8"))
    ]


def test_a_run_that_goes_on_knows_whose_its_ids_are(caplog):
    nodes = Nodes({1: who("0"), 2: who("1"), 3: who("")})
    owners = {"0": fingerprint(key(2)), "4": fingerprint(key(3))}
    deployment = Deployment(nodes)
    deployment.gather(1, QUESTION, owners)
    assert deployment._present() == {"4": 3}
    assert len(refused(caplog)) == 2


def test_the_operators_word_of_who_has_a_key_goes_before_its_supernodes(caplog):
    nodes = Nodes(
        {1: who("2"), 2: who(""), 3: who("3"), 4: who("0"), 5: who("5"), 6: who("")},
        {1: "0", 2: "1", 3: "3", 5: "the hospital", 6: "007"},
    )
    deployment = Deployment(nodes)
    assert deployment.gather(4, QUESTION, {}).keys() == {"0", "1", "2", "3", "5"}
    assert deployment._present() == {"0": 4, "1": 2, "3": 3, "5": 5, "2": 6}
    assert refused(caplog) == [f"its key {fingerprint(key(1))} is registered as client 0 and says it is client 2"]


def test_an_id_that_a_key_was_registered_with_is_nobody_elses_who_comes_with_it(caplog):
    nodes = Nodes({1: who(""), 2: who("0"), 3: who("")}, {3: "0"})
    deployment = Deployment(nodes)
    deployment.gather(2, QUESTION, {})
    assert deployment._present() == {"0": 3, "1": 1}
    assert refused(caplog) == [
        f"it is not client 0: that is key {fingerprint(key(3))}, its own is {fingerprint(key(2))}"
    ]


def test_who_has_no_key_cannot_take_part(caplog, monkeypatch):
    monkeypatch.setattr("tests.federation.test_server.key", lambda number: b"")
    with pytest.raises(RoundFailedError, match="0 of 1 SuperNodes"):
        Deployment(Nodes({1: who("0")})).gather(1, QUESTION, {})
    assert refused(caplog)[0].startswith("it has no key that can be read")


def test_a_newcomer_without_an_answer_holds_up_one_round_at_most():
    nodes = Nodes({1: who("0"), 2: who("1")})
    deployment, joined = Deployment(nodes), []
    nodes.silent = {"m2"}
    began = time.monotonic()
    deployment.gather(1, QUESTION, {})
    assert time.monotonic() - began >= 0.1  # ANSWER_SECONDS, once
    for _ in range(3):
        assert deployment._find_clients(PLAN, hooks(joined)) == {"0": 1}
    nodes.silent = set()
    assert deployment._find_clients(PLAN, hooks(joined)) == {"0": 1, "1": 2}
    assert joined == [("1", [1, 2])]
    assert [node for node, _ in nodes.questions] == [1, 2]  # each is asked once


def test_who_was_away_is_asked_again():
    """A node keeps its id where it has a key of its own, and comes back with its folder mended or with other data."""
    nodes = Nodes({1: who("0"), 2: Error(1, "nowhere is not a folder"), 3: who("")})
    deployment, joined = Deployment(nodes), []
    deployment.gather(2, QUESTION, {})
    assert deployment._present() == {"0": 1, "1": 3}
    back = {node: nodes.answers.pop(node) for node in (2, 3)}
    assert deployment._find_clients(PLAN, hooks(joined)) == {"0": 1}
    nodes.answers |= {2: who("5", (8, 8)), 3: who("1", (9, 9))}
    assert deployment._find_clients(PLAN, hooks(joined)) == {"0": 1, "5": 2, "1": 3}
    assert joined == [("5", [8, 8]), ("1", [9, 9])]
    assert isinstance(back[2], Error)


def test_who_was_not_to_be_reached_is_asked_again():
    nodes = Nodes({1: who("0"), 2: Error(ErrorCode.NODE_UNAVAILABLE, "away")})
    deployment, joined = Deployment(nodes), []
    deployment.gather(1, QUESTION, {})
    nodes.answers[2] = who("1")
    assert deployment._find_clients(PLAN, hooks(joined)) == {"0": 1, "1": 2}


def test_answers_that_cannot_be_read_keep_out_their_supernodes_alone(caplog):
    class Breaking(Nodes):
        def pull_messages(self, ids):
            if "m2" in ids:
                raise TypeError("\x1b[2Jno such \u202eobject" * 1000)
            return super().pull_messages(ids)

    odd = {3: {"client-id": "9", "label-counts": [2**62, 2**62]}, 4: Error(1, "no\x00data\n" * 10**6)}
    deployment = Deployment(Breaking({1: who("0"), 2: who("1"), **odd}))
    with caplog.at_level(logging.WARNING):
        assert list(deployment.gather(1, QUESTION, {})) == ["0"]
        with pytest.raises(RoundFailedError, match="1 of 2 SuperNodes are there"):
            deployment._wait_for(2)
    said = [message for message in caplog.messages if "cannot take part" in message]
    assert len(said) == 3
    assert all(len(message) < 400 and message.isprintable() for message in said)
