"""The node that plays a simulation's clients: what in_process.py and ray_grid.py have in common."""

import traceback
from collections.abc import Collection, Iterable
from itertools import count
from typing import Any, NoReturn

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.client_app import ClientAppException
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

_NODE_ID = 2  # any number but the server's
_NUMBERS = count(1)


class SimulatedGrid(Grid):
    """One node, which plays whichever client it is told to; there is no run of Flower's."""

    def give_up(self, message_ids: Collection[str]) -> None:
        """Free what works on messages whose replies are waited for no longer."""
        del message_ids

    def get_node_ids(self) -> Iterable[int]:
        """Return the only node."""
        return [_NODE_ID]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> NoReturn:
        """Refuse: ``ReportingGrid`` does, by the two others."""
        raise NotImplementedError

    def set_run(self, run: Run) -> NoReturn:
        """Refuse."""
        raise NotImplementedError

    @property
    def run(self) -> NoReturn:
        """Refuse."""
        raise NotImplementedError

    def create_message(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refuse: ``Message`` makes messages."""
        raise NotImplementedError


def sends_as_server() -> None:
    """Let the messages of this process be the server's: every message names its sender."""
    TaskIdentity.task_id = TaskIdentity.run_id = 1
    TaskIdentity.node_id = SUPERLINK_NODE_ID


def numbered(message: Message) -> str:
    """Give a message an id, as Flower's own grid does; returns it."""
    message_id = str(next(_NUMBERS))
    message.metadata.__dict__["_message_id"] = message_id
    return message_id


def answer(app: ClientApp, message: Message) -> tuple[Message, str | None]:
    """Call a client.

    Returns:
        Its reply, and None; or, like Flower's simulation, a reply that carries the error that it raised, and its
        traceback.
    """
    context = Context(1, _NODE_ID, {"partition-id": 0, "num-partitions": 1}, RecordDict(), {})
    try:
        return app(message, context), None
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever the client's code raises
        reason = str(ClientAppException(str(error)))
        reply = Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason), reply_to=message)
        return reply, traceback.format_exc()
