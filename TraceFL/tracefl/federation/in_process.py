"""A federation in this process: its clients are called one after another, with Flower's strategy and messages.

Neither Ray nor a second process is started, and a message is handed over as it is. A client that raises is dropped, as
in every federation; one that ends its process or fills the memory takes the server with it.
"""

import logging
import random
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import numpy as np
import torch
from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.client_app import ClientAppException
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from tracefl.federation import client
from tracefl.federation.server import Federation, keep_flower_quiet

_NODE_ID = 2  # any number but the server's


def federation_here(app: ClientApp = client.app) -> Federation:
    """Return a federation whose clients train in the thread that runs it.

    Args:
        app: The clients' app.
    """
    keep_flower_quiet()
    TaskIdentity.task_id = TaskIdentity.run_id = 1  # every message names its sender
    TaskIdentity.node_id = SUPERLINK_NODE_ID
    return Federation(InProcessGrid(app), max_in_flight=1)  # then each reply is announced once it is there


class InProcessGrid(Grid):
    """One node, which plays whichever client it is told to when its reply is asked for.

    Args:
        app: The clients' app.
    """

    def __init__(self, app: ClientApp) -> None:
        self._app = app
        self._unanswered: dict[str, Message] = {}
        self._pushed = 0

    def get_node_ids(self) -> Iterable[int]:
        """Return the only node."""
        return [_NODE_ID]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Keep the messages until their replies are asked for; returns their ids."""
        return [self._push(message) for message in messages]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Call the client of each message, and return its reply."""
        asked = [message_id for message_id in message_ids if message_id in self._unanswered]
        return [self._reply(self._unanswered.pop(message_id)) for message_id in asked]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Call the client of each message, and return the replies."""
        del timeout
        return self.pull_messages(self.push_messages(messages))

    def set_run(self, run: Run) -> NoReturn:
        """Refuse: there is no run of Flower's."""
        raise NotImplementedError

    @property
    def run(self) -> NoReturn:
        """Refuse: there is no run of Flower's."""
        raise NotImplementedError

    def create_message(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refuse: ``Message`` makes messages."""
        raise NotImplementedError

    def _push(self, message: Message) -> str:
        self._pushed += 1
        message_id = str(self._pushed)
        message.metadata.__dict__["_message_id"] = message_id  # as Flower's own grid does
        self._unanswered[message_id] = message
        return message_id

    def _reply(self, message: Message) -> Message:
        """Call a client; like Flower's simulation, turn what it raises into a reply that carries the error."""
        context = Context(1, _NODE_ID, {"partition-id": 0, "num-partitions": 1}, RecordDict(), {})
        try:
            with _servers_state():
                return self._app(message, context)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever the client's code raises
            logging.getLogger("flwr").error(traceback.format_exc())
            reason = str(ClientAppException(str(error)))
            return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason), reply_to=message)


@contextmanager
def _servers_state() -> Iterator[None]:
    """Restore, on exit, what a client may change of its whole process: threads, random numbers, torch's defaults."""
    threads, dtype, with_gradients = torch.get_num_threads(), torch.get_default_dtype(), torch.is_grad_enabled()
    python_state, numpy_state = random.getstate(), np.random.get_state()
    had_cuda = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    with torch.random.fork_rng(range(torch.cuda.device_count()) if had_cuda else ()):
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            torch.set_default_dtype(dtype)
            torch.set_grad_enabled(with_gradients)
            random.setstate(python_state)
            np.random.set_state(numpy_state)
    if torch.cuda.is_initialized() and not had_cuda:  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed_all(torch.initial_seed())  # as it would be had the server been the first to use it
