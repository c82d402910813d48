"""Runs whose server aggregates by a robust rule: an attacker is kept out, and every answer is an exact removal."""

import json

import pytest
from flwr.app import ArrayRecord
from flwr.clientapp import ClientApp

from tests.helpers.runs import TINY_MODEL, run
from tests.helpers.tables import read_csv
from tracefl.federation import client
from tracefl.federation.messages import client_id_of
from tracefl.provenance import weights_without
from tracefl.questions.one_input import explain_stored
from tracefl.questions.verify import verify
from tracefl.records.run import StoredRun
from tracefl.report.sentences import next_commands

pytestmark = pytest.mark.slow

ATTACKER = "2"


def attacked_app():
    """Client 2 turns its update around and makes it larger."""
    app = ClientApp()

    @app.train()
    def train(message, context):
        reply = client.train_client(message, context)
        if client_id_of(message) == ATTACKER:
            start = message.content.array_records["arrays"].to_torch_state_dict()
            state = reply.content.array_records["arrays"].to_torch_state_dict()
            turned = {n: w - 3 * (state[n] - w) if w.is_floating_point() else state[n] for n, w in start.items()}
            reply.content["arrays"] = ArrayRecord({n: w.abs() if "var" in n else w for n, w in turned.items()})
        return reply

    return app


@pytest.mark.parametrize(
    "strategy",
    [
        ("krum", "strategy.selected=2"),
        pytest.param(("bulyan", "strategy.malicious=0"), marks=pytest.mark.long),
        pytest.param(("trimmed_mean",), marks=pytest.mark.long),
        pytest.param(("median",), marks=pytest.mark.long),
    ],
)
def test_a_run_with_a_robust_rule(tmp_path, strategy):
    name, *keys = strategy
    folder = run(
        tmp_path, *TINY_MODEL, f"strategy={name}", *keys, "clients_per_round=5", "store=all", app=attacked_app()
    )
    assert json.loads((folder / "results.json").read_text())["rounds"] == 2
    traced = [each for result in StoredRun(folder).results() for each in result.traced]
    assert traced
    assert all(set(each.verified) == {client_id for client_id, _ in each.ranking} for each in traced)  # none estimated
    rows = [row for row in read_csv(folder / "rounds.csv") if row["counterfactual_agreement"]]
    assert [float(row["counterfactual_agreement"]) for row in rows] == [1.0] * len(rows)
    asked = next_commands(StoredRun(folder), list(StoredRun(folder).results()))[0].split()[
        3:
    ]  # of tracefl trace RUN ...
    given = dict(word.split("=") for word in asked)
    explained = explain_stored(folder, "input", given["input"], against=given["against"]).found
    assert (explained.layers, explained.is_settled) == ((), True)
    found = verify(folder)
    assert (found.problems, [each.server_round for each in found.averages]) == ([], [1, 2])
    _, record = StoredRun(folder).round(1)
    apart = [
        float((weights_without(record, other)["classifier.weight"] - weights["classifier.weight"]).abs().max())
        for other in record.clients
        for weights in [record.clients[ATTACKER]]
        if other != ATTACKER
    ]
    assert min(apart) > 1e-4
