"""Flower's connection to the nodes, with a callback for each reply and a time limit for each client."""

import logging
import math
import statistics
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

import httpx
from flwr.app import Error, Message
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from tracefl.errors import TraceFLError
from tracefl.federation.messages import client_id_of
from tracefl.federation.nodes import SimulatedGrid
from tracefl.federation.patience import Patience

log = logging.getLogger(__name__)

POLL_SECONDS = 0.05
_LONG, _LONG_LEAST_SECONDS = 3.0, 10.0
"""A round that takes so many times as long as the others' median, and at least so long, is said to."""

UNREADABLE = ErrorCode.UNKNOWN
"""Code of the error that stands for a reply which cannot be read."""


def arrived(grid: Grid, sent: Mapping[str, Message]) -> Iterator[tuple[str, Message]]:
    """Yield the replies that have arrived, each with the id of the message that it answers.

    They are asked for one by one. So whose a reply is does not depend on what it says, and one that cannot be read
    takes no other with it: it is replaced by an error that says why.

    Args:
        grid: Where to ask.
        sent: The messages that await a reply, by the ids that the grid gave them.

    Raises:
        httpx.HTTPError: The server of Flower cannot be reached.
        ClusterLostError: What simulated clients train in is gone.
    """
    for message_id, message in sent.items():
        try:
            replies = list(grid.pull_messages([message_id]))
        except (httpx.HTTPError, TraceFLError):
            raise
        except Exception as error:  # noqa: BLE001 - whatever a client's bytes make of Flower's reading
            why = f"a reply that cannot be read: {type(error).__name__}: {error}"
            replies = [Message(Error(UNREADABLE, why), reply_to=message)]
        if replies:
            yield message_id, replies[0]


class ReportingGrid(Grid):
    """A grid that reports each reply, limits the messages in flight, and gives up clients that stay silent.

    The rest is delegated to the inner grid.
    """

    def __init__(
        self,
        inner: Grid,
        on_reply: Callable[[], None],
        max_in_flight: int | None,
        patience: Patience,
    ) -> None:
        self._inner = inner
        self._on_reply = on_reply
        self._max_in_flight = max_in_flight
        self._patience = patience
        self._seconds: list[float] = []  # of the rounds so far

    def set_run(self, run: Run) -> None:
        """Delegate to the inner grid."""
        self._inner.set_run(run)

    @property
    def run(self) -> Run:
        """Delegate to the inner grid."""
        return self._inner.run

    def create_message(self, *args: Any, **kwargs: Any) -> Message:
        """Delegate to the inner grid."""
        return self._inner.create_message(*args, **kwargs)

    def get_node_ids(self) -> Iterable[int]:
        """Delegate to the inner grid."""
        return self._inner.get_node_ids()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Delegate to the inner grid."""
        return self._inner.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Delegate to the inner grid."""
        return self._inner.pull_messages(message_ids)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Send the messages and wait for their replies, as long as ``Patience`` says.

        Args:
            messages: To send.
            timeout: Not used.

        Raises:
            ClusterLostError: What the clients train in is gone, and none of them is to blame.
        """
        unsent, timeout = list(messages), self._patience.timeout_seconds
        self._patience.round_started(len(unsent))
        waiting: dict[str, Message] = {}
        since: dict[str, float] = {}
        replies: list[Message] = []
        began, is_said = time.monotonic(), False
        deadline = None if timeout is None else began + timeout
        while (unsent or waiting) and (deadline is None or time.monotonic() < deadline):
            room = len(unsent) if self._max_in_flight is None else self._max_in_flight - len(waiting)
            pushed = set(self._inner.push_messages(unsent[:room]))  # without a message whose node is gone
            by_id = {message.metadata.message_id: message for message in unsent[:room]}
            waiting |= {message_id: message for message_id, message in by_id.items() if message_id in pushed}
            since |= dict.fromkeys(pushed, time.monotonic())
            del unsent[:room]
            answered = self._take_replies(waiting, since)
            replies += answered
            if deadline is None:
                self._give_up(waiting, since)
            is_said = is_said or self._say_if_long(time.monotonic() - began, waiting.values())
            if waiting and not answered:
                time.sleep(POLL_SECONDS)
        self._free(waiting)
        self._seconds.append(time.monotonic() - began)
        return replies

    def _say_if_long(self, seconds: float, waiting: Collection[Message]) -> bool:
        """Say who is waited for where a round takes much longer than the others; returns whether it did."""
        usual = statistics.median(self._seconds) if self._seconds else math.inf
        if not waiting or seconds < max(_LONG * usual, _LONG_LEAST_SECONDS):
            return False
        clients = " ".join(sorted((client_id_of(message) for message in waiting), key=int))
        log.warning(
            "this round takes %.0f s so far, and others took %.0f s: waiting for clients %s", seconds, usual, clients
        )
        return True

    def _free(self, message_ids: Iterable[str]) -> None:
        """Let a simulated client that is waited for no longer be ended: its place would be lost to all others."""
        if isinstance(self._inner, SimulatedGrid):
            self._inner.give_up(set(message_ids))

    def _take_replies(self, waiting: dict[str, Message], since: Mapping[str, float]) -> list[Message]:
        """Return the replies that have arrived, and no longer wait for them."""
        replies = []
        for message_id, reply in list(arrived(self._inner, waiting)):
            reply.metadata.__dict__["_reply_to_message_id"] = message_id  # else it says itself whose it is
            client_id = client_id_of(waiting.pop(message_id))
            self._patience.replied(client_id, time.monotonic() - since[message_id])
            replies.append(reply)
            self._on_reply()
        return replies

    def _give_up(self, waiting: dict[str, Message], since: Mapping[str, float]) -> None:
        """Wait no longer for clients that have been silent for too long."""
        for message_id, message in list(waiting.items()):
            client_id = client_id_of(message)
            if time.monotonic() - since[message_id] > self._patience.seconds(client_id):
                del waiting[message_id]
                self._free([message_id])
                self._patience.gave_up(client_id)
