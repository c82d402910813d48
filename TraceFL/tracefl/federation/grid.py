"""Flower's connection to the nodes, with a callback for each reply and a time limit for each client."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import httpx
from flwr.app import Error, Message
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from tracefl.federation.messages import client_id_of
from tracefl.federation.patience import Patience

POLL_SECONDS = 0.05

UNREADABLE = ErrorCode.UNKNOWN
"""Code of the error that stands for a reply which cannot be read."""


class Ending:
    """Why no client will reply any more; without locks, so that a signal's handler can say so."""

    def __init__(self) -> None:
        self.error: BaseException | None = None
        """What the server is to raise in place of waiting; None while the clients are there."""

    def check(self) -> None:
        """Raise the error, where there is one."""
        if self.error is not None:
            raise self.error


def arrived(grid: Grid, sent: Mapping[str, Message]) -> Iterator[tuple[str, Message]]:
    """Yield the replies that have arrived, each with the id of the message that it answers.

    They are asked for one by one. So whose a reply is does not depend on what it says, and one that cannot be read
    takes no other with it: it is replaced by an error that says why.

    Args:
        grid: Where to ask.
        sent: The messages that await a reply, by the ids that the grid gave them.

    Raises:
        httpx.HTTPError: The server of Flower cannot be reached.
    """
    for message_id, message in sent.items():
        try:
            replies = list(grid.pull_messages([message_id]))
        except httpx.HTTPError:
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
        ending: Ending,
        patience: Patience,
    ) -> None:
        self._ending = ending
        self._inner = inner
        self._on_reply = on_reply
        self._max_in_flight = max_in_flight
        self._patience = patience

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
            BaseException: The error of ``Ending``: the clients are gone, and none of them is to blame.
        """
        unsent, timeout = list(messages), self._patience.timeout_seconds
        self._patience.round_started(len(unsent))
        waiting: dict[str, Message] = {}
        since: dict[str, float] = {}
        replies: list[Message] = []
        deadline = None if timeout is None else time.monotonic() + timeout
        while (unsent or waiting) and (deadline is None or time.monotonic() < deadline):
            self._ending.check()
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
            if waiting and not answered:
                time.sleep(POLL_SECONDS)
        self._ending.check()  # what has arrived last may be the errors of clients that were ended
        return replies

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
                self._patience.gave_up(client_id)
