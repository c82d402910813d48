"""A run in which four of five clients misbehave in the first round: it goes on, and says who did what."""

import json

import pytest
import torch
from flwr.app import ArrayRecord
from flwr.clientapp import ClientApp

from tests.helpers.runs import TINY_MODEL, run
from tests.helpers.tables import read_csv
from tracefl.federation import client
from tracefl.federation.messages import client_id_of
from tracefl.records.run import StoredRun
from tracefl.records.store import RoundStore

pytestmark = pytest.mark.slow

FAR, NEGATIVE, LOUD, VARIANCE = "1", "2", "3", "features.norm0.running_var"


def hostile_app():
    app = ClientApp()

    @app.train()
    def train(message, context):
        client_id = client_id_of(message)
        reply = client.train_client(message, context)
        if message.content.config_records["config"]["server-round"] > 1:
            return reply
        if client_id == LOUD:
            raise ValueError("<script>alert(1)</script>\n" * 10**5)
        state = reply.content.array_records["arrays"].to_torch_state_dict()
        if client_id == FAR:
            state["classifier.weight"] = torch.full_like(state["classifier.weight"], 1e30)
        if client_id == NEGATIVE:
            state[VARIANCE] = torch.full_like(state[VARIANCE], -1000.0)
        reply.content["arrays"] = ArrayRecord(state)
        return reply

    return app


def test_a_run_among_hostile_clients_says_who_they_were(tmp_path):
    folder = run(tmp_path, *TINY_MODEL, "clients_per_round=5", "store=all", app=hostile_app())
    results = json.loads((folder / "results.json").read_text())
    assert results["rounds"] == 2
    assert (results["clients_refused"], results["clients_capped"]) == ({NEGATIVE: 1}, {FAR: 1})
    first = json.loads((folder / "rounds" / "0001" / "round.json").read_text())
    assert first["refused"] == [NEGATIVE]
    assert first["dropped"][NEGATIVE] == f"a negative variance, -1000 in {VARIANCE}"
    assert len(first["dropped"][LOUD]) <= 303
    assert first["capped"][FAR].startswith("its update had a norm of 8.94")
    assert first["capped"][FAR].endswith("5 times the round's median")
    stored = StoredRun(folder).round(1)[1]
    assert float(stored.clients[FAR]["classifier.weight"].abs().max()) < 1e3
    again = sum(p * stored.clients[k]["classifier.weight"] for k, p in stored.client_weights.items())
    torch.testing.assert_close(again, stored.global_weights["classifier.weight"])
    assert all(0 <= float(row["global_accuracy"]) <= 1 for row in read_csv(folder / "rounds.csv"))
    assert [result.refused for result in RoundStore(folder / "rounds").results()] == [(NEGATIVE,), ()]
    log = (folder / "run.log").read_text()
    assert f"refused: client {NEGATIVE} in 1 round; brought down to a bound: client {FAR} in 1 round" in log
    page = (folder / "report.html").read_text()
    assert f"What clients sent was refused: client {NEGATIVE} in 1 round." in page
    assert "<script>alert(1)" not in page
