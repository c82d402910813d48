"""Flower's connection to the nodes, with a callback for each reply."""

import time
from collections.abc import Callable, Iterable
from typing import Any

from flwr.app import Message
from flwr.serverapp import Grid
from flwr.supercore.run import Run

POLL_SECONDS = 0.05


class Ending:
    """Why no client will reply any more; without locks, so that a signal's handler can say so."""

    def __init__(self) -> None:
        self.error: BaseException | None = None
        """What the server is to raise in place of waiting; None while the clients are there."""

    def check(self) -> None:
        """Raise the error, where there is one."""
        if self.error is not None:
            raise self.error


class ReportingGrid(Grid):
    """A grid that reports each reply and limits the messages in flight; the rest is delegated to the inner grid."""

    def __init__(self, inner: Grid, on_reply: Callable[[], None], max_in_flight: int | None, ending: Ending) -> None:
        self._ending = ending
        self._inner = inner
        self._on_reply = on_reply
        self._max_in_flight = max_in_flight

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
        """Send the messages and wait for their replies, for at most ``timeout`` seconds.

        Raises:
            BaseException: The error of ``Ending``: the clients are gone, and none of them is to blame.
        """
        unsent = list(messages)
        waiting: set[str] = set()
        replies: list[Message] = []
        deadline = None if timeout is None else time.monotonic() + timeout
        while (unsent or waiting) and (deadline is None or time.monotonic() < deadline):
            self._ending.check()
            room = len(unsent) if self._max_in_flight is None else self._max_in_flight - len(waiting)
            waiting.update(filter(None, self._inner.push_messages(unsent[:room])))  # None: the node is gone
            del unsent[:room]
            arrived = list(self._inner.pull_messages(waiting))
            waiting -= {reply.metadata.reply_to_message_id for reply in arrived}
            replies += arrived
            for _ in arrived:
                self._on_reply()
            if waiting and not arrived:
                time.sleep(POLL_SECONDS)
        self._ending.check()  # what has arrived last may be the errors of clients that were ended
        return replies
