"""A client app that leaves, beside the run's folder, a file for each Ray node on which a client trained."""

import json
from pathlib import Path

import ray
from flwr.clientapp import ClientApp

from tracefl.federation import client

app = ClientApp()


@app.train()
def train(message, context):
    job = json.loads(message.content.config_records["config"]["job"])
    node = ray.get_runtime_context().get_node_id()
    (Path(job["data_path"]).parents[1] / f"node-{node}").touch()
    return client.train_client(message, context)
