"""A federation whose clients train on Ray, several at once, with Flower's strategy and messages.

Flower's own simulation waits for each worker for ever: one that stands still keeps a finished run from ending. Here a
worker whose client stays silent is ended; one that is lost is replaced, and its client asked once more; and a Ray that
is gone ends the wait.
"""

import logging
from collections import deque
from collections.abc import Collection, Iterable
from typing import Any

import ray
from flwr.app import Error, Message
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode
from ray.exceptions import RayError, RayTaskError

from tracefl.common.words import repeated
from tracefl.federation import client
from tracefl.federation.messages import client_id_of
from tracefl.federation.nodes import SimulatedGrid, answer, numbered, sends_as_server
from tracefl.federation.ray_cluster import clients_at_once
from tracefl.federation.ray_processes import RayProcesses
from tracefl.federation.resources import Resources
from tracefl.federation.server import Federation, keep_flower_quiet

log = logging.getLogger(__name__)

_MOST_CHARACTERS = 500  # of what Ray says of a worker that it has lost


def federation_on_ray(resources: Resources, app: ClientApp = client.app) -> Federation:
    """Return a federation whose clients train on the Ray that is running, as many at once as the resources allow.

    Args:
        resources: CPUs and GPUs; they never change a result.
        app: The clients' app.

    Raises:
        ConfigError: No node has enough CPUs and GPUs for one client.
    """
    keep_flower_quiet()
    sends_as_server()
    at_once = clients_at_once(resources)
    return Federation(RayGrid(app, resources, at_once), max_in_flight=at_once)


@ray.remote
class _Worker:
    """Plays one client after another."""

    def answer(self, app: ClientApp, message: Message) -> tuple[Message, str | None]:
        """Return a client's reply, and the traceback where it is an error."""
        return answer(app, message)


class RayGrid(SimulatedGrid):
    """A node that plays several clients at once, on Ray's workers.

    Args:
        app: The clients' app.
        resources: What a client takes.
        at_once: How many workers there may be.
    """

    def __init__(self, app: ClientApp, resources: Resources, at_once: int) -> None:
        self._app = ray.put(app)
        # Ray restarts no worker by itself: whose client it was is known here alone.
        self._workers = _Worker.options(  # type: ignore[attr-defined]
            num_cpus=resources.client_cpus, num_gpus=resources.client_gpus, max_restarts=0
        )
        self._at_once = at_once
        self._idle: list[Any] = []
        self._unsent: deque[Message] = deque()
        self._running: dict[Any, tuple[Message, Any]] = {}  # by Ray's reference: the message, and the worker
        self._asked_again: set[str] = set()
        self._processes = RayProcesses()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Hand the messages to workers as these are free; returns their ids."""
        ids = []
        for message in messages:
            ids.append(numbered(message))
            self._unsent.append(message)
        self._send()
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies that have arrived.

        Raises:
            ClusterLostError: Ray itself is gone.
        """
        wanted = set(message_ids)
        self._processes.check()
        running = [ref for ref, (message, _) in self._running.items() if message.metadata.message_id in wanted]
        if not running:
            return []
        ready, _ = ray.wait(running, num_returns=len(running), timeout=0)
        replies = [reply for ref in ready if (reply := self._take(ref)) is not None]
        self._send()
        return replies

    def give_up(self, message_ids: Collection[str]) -> None:
        """End the workers of clients that are waited for no longer: they would keep their place for ever."""
        for ref, (message, worker) in list(self._running.items()):
            if message.metadata.message_id in message_ids:
                del self._running[ref]
                ray.kill(worker)
        self._unsent = deque(m for m in self._unsent if m.metadata.message_id not in message_ids)

    def _send(self) -> None:
        while self._unsent and len(self._running) < self._at_once:
            worker = self._idle.pop() if self._idle else self._workers.remote()
            message = self._unsent.popleft()
            self._running[worker.answer.remote(self._app, message)] = message, worker

    def _take(self, ref: Any) -> Message | None:
        """Return the reply of a worker that is done; None where its client is asked again."""
        message, worker = self._running.pop(ref)
        client_id = client_id_of(message)
        try:
            reply, trace = ray.get(ref)
        except RayError as error:
            reason = repeated(error, _MOST_CHARACTERS)
            if isinstance(error, RayTaskError):  # the worker lives, and its reply cannot be serialized, for example
                self._idle.append(worker)
            elif message.metadata.message_id not in self._asked_again:
                log.warning("client %s is asked again: its worker was lost: %s", client_id, reason)
                self._asked_again.add(message.metadata.message_id)
                self._unsent.appendleft(message)
                return None
            return Message(Error(ErrorCode.UNKNOWN, reason), reply_to=message)
        self._idle.append(worker)
        if trace is not None:
            logging.getLogger("flwr").error(trace)
        assert isinstance(reply, Message)
        return reply
