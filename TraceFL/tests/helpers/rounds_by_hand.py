"""A strategy that is fed by hand-made replies, and what it told its hooks."""

import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict

from tests.helpers.plans import Told, make_hooks, make_plan
from tracefl.federation.strategy import STRATEGIES

NODES = {"0": 7, "1": 8, "2": 7, "10": 8}


class Server:
    """A strategy, and what it told its hooks; ``round`` runs one round with the replies that are given."""

    def __init__(self, strategy="fedavg", is_sound=lambda weights: True, nodes=None, **plan):
        self.told = Told()
        self.plan = make_plan(strategy=strategy, **plan)
        hooks = make_hooks(self.told, is_sound)
        self.strategy = STRATEGIES[strategy](self.plan, hooks, lambda: NODES if nodes is None else nodes)

    def configure(self, server_round=1, weights=None):
        arrays = ArrayRecord(self.plan.initial_weights if weights is None else weights)
        sent = list(self.strategy.configure_train(server_round, arrays, ConfigRecord({"job": "{}"}), None))
        for number, message in enumerate(sent):
            message.metadata.__dict__["_message_id"] = f"m{number}"
        return {message.content.config_records["config"]["client-id"]: message for message in sent}

    def round(self, replies, server_round=1, weights=None):
        """``replies``: client id to a function of its message; clients without one stay silent."""
        sent = self.configure(server_round, weights)
        answers = [replies[client_id](message) for client_id, message in sent.items() if client_id in replies]
        arrays, _ = self.strategy.aggregate_train(server_round, answers)
        return arrays.to_torch_state_dict()


def replied(arrays, metrics=None, client_id=None, **more):
    """Return a function that answers a message.

    Args:
        arrays: A state dict, or Flower's arrays by name.
        metrics: In place of 10 examples and a loss of 0.5.
        client_id: Who says that it answers; the client that was asked, by default.
        more: Further records.
    """

    def reply(message):
        asked = message.content.config_records["config"]["client-id"]
        content = {
            "arrays": ArrayRecord(arrays),
            "metrics": MetricRecord({"num-examples": 10, "train-loss": 0.5} if metrics is None else metrics),
            "client": ConfigRecord({"client-id": asked if client_id is None else client_id}),
        }
        return Message(RecordDict(content | more), reply_to=message)

    return reply


def trained(*weights, examples=10, loss=0.5):
    return replied({"w": torch.tensor(weights)}, {"num-examples": examples, "train-loss": loss})


def failed(message):
    return Message(Error(1, "Traceback\nValueError: no data"), reply_to=message)


def unreadable(message):
    return replied({"w": Array("float32", (2,), "numpy.ndarray", b"no array")})(message)
