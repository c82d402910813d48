"""A federation in this process: its clients are called one after another, with Flower's strategy and messages.

Neither Ray nor a second process is started, and a message is handed over as it is. A client that raises is dropped, as
in every federation; one that ends its process or fills the memory takes the server with it.
"""

import logging
import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from flwr.app import Message
from flwr.clientapp import ClientApp

from tracefl.federation import client
from tracefl.federation.nodes import SimulatedGrid, answer, numbered, sends_as_server
from tracefl.federation.server import Federation, keep_flower_quiet


def federation_here(app: ClientApp = client.app) -> Federation:
    """Return a federation whose clients train in the thread that runs it.

    Args:
        app: The clients' app.
    """
    keep_flower_quiet()
    sends_as_server()
    return Federation(InProcessGrid(app), max_in_flight=1)  # then each reply is announced once it is there


class InProcessGrid(SimulatedGrid):
    """A node that plays a client when its reply is asked for.

    Args:
        app: The clients' app.
    """

    def __init__(self, app: ClientApp) -> None:
        self._app = app
        self._unanswered: dict[str, Message] = {}

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Keep the messages until their replies are asked for; returns their ids."""
        return [self._push(message) for message in messages]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Call the client of each message, and return its reply."""
        asked = [message_id for message_id in message_ids if message_id in self._unanswered]
        return [self._reply(self._unanswered.pop(message_id)) for message_id in asked]

    def _push(self, message: Message) -> str:
        message_id = numbered(message)
        self._unanswered[message_id] = message
        return message_id

    def _reply(self, message: Message) -> Message:
        with _servers_state():
            reply, trace = answer(self._app, message)
        if trace is not None:
            logging.getLogger("flwr").error(trace)
        return reply


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
