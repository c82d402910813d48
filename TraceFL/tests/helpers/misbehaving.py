"""Client apps whose clients 1, 2 and 3 misbehave in one round: raise, die, answer with a NaN.

In this process nobody may die; client 2 raises there too.
"""

import os

import torch
from flwr.app import ArrayRecord
from flwr.clientapp import ClientApp

from tracefl.federation import client
from tracefl.federation.messages import client_id_of


def misbehaving_app(bad_round, dies=True):
    app = ClientApp()

    @app.train()
    def train(message, context):
        client_id = client_id_of(message)
        bad = message.content.config_records["config"]["server-round"] == bad_round
        if bad and client_id == "1":
            raise ValueError("the disk of client 1 is full")
        if bad and client_id == "2":
            if dies:
                os._exit(1)
            raise MemoryError
        reply = client.train_client(message, context)
        if bad and client_id == "3":
            state = reply.content.array_records["arrays"].to_torch_state_dict()
            last = next(reversed(state))
            state[last] = torch.full_like(state[last], torch.nan)
            reply.content["arrays"] = ArrayRecord(state)
        return reply

    return app
