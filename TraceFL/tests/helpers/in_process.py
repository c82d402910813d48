"""A federation whose clients train in this process: Flower's strategies and messages, without Ray."""

import torch
from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity

from tracefl.errors import RunStopped


class InProcessGrid(Grid):
    """One node, which plays whichever client it is told to when its reply is asked for."""

    def __init__(self, app: ClientApp, stop_in: int | None):
        self._app, self._stop_in = app, stop_in
        self._unanswered: dict[str, Message] = {}
        self._count = 0
        TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1  # every message names its sender

    def get_node_ids(self):
        return [1]

    def push_messages(self, messages):
        return [self._push(message) for message in messages]

    def pull_messages(self, message_ids):
        return [self._reply(self._unanswered.pop(each)) for each in list(message_ids) if each in self._unanswered]

    def _push(self, message):
        if message.content.config_records["config"].get("server-round") == self._stop_in is not None:
            raise RunStopped(f"stopped by a test in round {self._stop_in}")
        self._count += 1
        message.metadata.__dict__["_message_id"] = str(self._count)
        self._unanswered[str(self._count)] = message
        return str(self._count)

    def _reply(self, message):
        context = Context(0, 1, {"partition-id": 0, "num-partitions": 1}, RecordDict(), {})
        threads = torch.get_num_threads()
        try:
            return self._app(message, context)
        except Exception as error:  # noqa: BLE001 - as Flower answers it
            return Message(Error(code=0, reason=repr(error)), reply_to=message)
        finally:
            torch.set_num_threads(threads)

    def send_and_receive(self, messages, *, timeout=None):
        return self.pull_messages(self.push_messages(messages))

    def set_run(self, run):
        raise NotImplementedError

    @property
    def run(self):
        raise NotImplementedError

    def create_message(self, *args, **kwargs):
        raise NotImplementedError
