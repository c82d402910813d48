"""How long a client is waited for, with a clock that the test moves."""

import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, RecordDict
from flwr.common.constant import ErrorCode

from tracefl.federation import grid
from tracefl.federation.grid import ReportingGrid
from tracefl.federation.patience import Patience

EXAMPLES = {"a": 100, "b": 100, "big": 1000, "huge": 10**9}


def after_a_round(*seconds):
    """Patience after a first round, in which client a took so many seconds each time."""
    patience = Patience(EXAMPLES)
    patience.round_started(len(seconds))
    for each in seconds:
        patience.replied("a", each)
    patience.round_started(4)
    return patience


def test_in_the_first_round_nobody_is_given_up_before_half_have_replied():
    patience = Patience(EXAMPLES)
    patience.round_started(4)
    assert patience.seconds("b") == 3600
    patience.replied("a", 0.1)
    assert patience.seconds("b") == 3600
    patience.replied("a", 60.0)
    assert patience.seconds("b") == 600  # ten times the slowest
    patience = Patience(EXAMPLES)
    patience.round_started(2)
    patience.replied("a", 0.1)
    assert patience.seconds("b") == 300


@pytest.mark.parametrize(
    ("slowest", "client", "seconds"),
    [
        (1.0, "b", 60),  # a minute at least
        (30.0, "b", 150),  # five times the slowest
        (900.0, "b", 3600),  # an hour at most
        (30.0, "big", 1500),  # ten times the examples
        (30.0, "huge", 1500),  # a client may say that it has any number
    ],
)
def test_later_it_is_a_multiple_of_the_slowest_reply(slowest, client, seconds):
    assert after_a_round(0.5, slowest).seconds(client) == pytest.approx(seconds)


def test_who_was_silent_is_waited_for_less_until_it_replies():
    patience = after_a_round(30.0)
    waits = []
    for _ in range(4):
        waits.append(patience.seconds("b"))
        patience.gave_up("b")
    assert waits == [150, 75, 37.5, 30]  # never less than what others take
    patience.replied("b", 20.0)
    assert patience.seconds("b") == 150


def test_the_reason_says_how_long():
    patience = after_a_round(30.0)
    patience.gave_up("b")
    assert patience.why_silent("b") == "no reply in 150 s (strategy.timeout_seconds)"
    assert patience.why_silent("a") == "no reply before the time limit (strategy.timeout_seconds)"


class _Clients:
    """A grid whose clients each reply after so many seconds of a clock that runs while the grid sleeps."""

    def __init__(self, seconds, monkeypatch):
        self.now, self._seconds, self._sent = 0.0, seconds, {}
        monkeypatch.setattr(grid.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(grid.time, "sleep", self._sleep)

    def _sleep(self, seconds):
        self.now += 1.0

    def push_messages(self, messages):
        for message in messages:
            message.metadata.__dict__["_message_id"] = f"m{len(self._sent)}"
            self._sent[message.metadata.message_id] = message, self.now
        return [message.metadata.message_id for message in messages]

    def pull_messages(self, ids):
        (message_id,) = ids
        message, sent = self._sent[message_id]
        client_id = message.content.config_records["config"]["client-id"]
        answer = self._seconds[client_id]
        if isinstance(answer, Exception):
            raise answer
        if answer is None or self.now < sent + answer:
            return []
        reply = Message(RecordDict(), reply_to=message)
        reply.metadata.__dict__["_reply_to_message_id"] = "m0"  # whoever it is: it says that it is the first
        return [reply]


def ask(clients, *ids, patience, most=None):
    messages = [
        Message(RecordDict({"config": ConfigRecord({"client-id": k}), "arrays": ArrayRecord()}), 7, MessageType.TRAIN)
        for k in ids
    ]
    counted = []
    reporting = ReportingGrid(clients, lambda: counted.append(1), most, patience)
    replies = reporting.send_and_receive(messages)
    assert len(counted) == len(replies)
    of = {message.metadata.message_id: k for message, k in zip(messages, ids, strict=True)}
    return {of[reply.metadata.reply_to_message_id]: reply for reply in replies}


@pytest.mark.usefixtures("task")
class TestARound:
    def test_a_silent_client_costs_minutes_and_the_next_time_less(self, monkeypatch):
        patience = Patience({})
        clients = _Clients({"a": 20, "b": 30, "c": 40, "d": None}, monkeypatch)
        assert set(ask(clients, "a", "b", "c", "d", patience=patience)) == {"a", "b", "c"}
        assert 400 <= clients.now <= 405
        assert patience.why_silent("d") == "no reply in 400 s (strategy.timeout_seconds)"
        began = clients.now
        assert set(ask(clients, "a", "d", patience=patience)) == {"a"}
        assert 100 <= clients.now - began <= 105

    def test_a_time_limit_of_ones_own_holds_for_the_whole_round(self, monkeypatch):
        clients = _Clients({"a": 20, "b": 30, "d": None}, monkeypatch)
        assert set(ask(clients, "a", "b", "d", patience=Patience({}, 25.0))) == {"a"}
        assert 25 <= clients.now <= 26

    def test_each_clients_time_begins_when_it_is_asked(self, monkeypatch):
        patience = after_a_round(30.0)
        clients = _Clients(dict.fromkeys("abcdefgh", 100), monkeypatch)
        assert set(ask(clients, *"abcdefgh", patience=patience, most=1)) == set("abcdefgh")

    def test_a_reply_that_cannot_be_read_is_its_clients_alone(self, monkeypatch):
        clients = _Clients({"a": 1, "b": ValueError("no such object"), "c": 1}, monkeypatch)
        replies = ask(clients, "a", "b", "c", patience=Patience({}))
        assert not replies["a"].has_error()
        assert not replies["c"].has_error()
        assert replies["b"].error.code == ErrorCode.UNKNOWN
        assert replies["b"].error.reason == "a reply that cannot be read: ValueError: no such object"

    def test_a_lost_connection_is_nobodys_fault(self, monkeypatch):
        clients = _Clients({"a": 1, "b": grid.httpx.ConnectError("gone")}, monkeypatch)
        with pytest.raises(grid.httpx.ConnectError, match="gone"):
            ask(clients, "a", "b", patience=Patience({}))
