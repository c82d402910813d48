"""The app on a SuperLink and SuperNodes of this machine, as docs/deploy.md says, and what strangers get.

One client comes late, one is killed in a round, and somebody with a key of its own takes the id of another.
"""

import itertools
import json
import re

import numpy as np
import pytest
import torch
from datasets import Dataset, Features, Image, Value
from PIL import Image as Picture
from sklearn.datasets import load_digits

from tests.helpers.deployed import OUTSIDE, Deployed
from tests.helpers.flower_processes import APP
from tests.helpers.processes import wait_until
from tests.helpers.sockets import listening
from tests.helpers.strangers import PATHS, answer_of_the_superlink_itself, answers_to_a_supernode, status_of
from tests.helpers.tables import read_csv
from tracefl.questions.retrace import retrace
from tracefl.records.tables import provenance_rows

pytestmark = [pytest.mark.slow]

HELD = {"0": (0, 1, 2, 3), "1": (3, 4, 5, 6), "2": (6, 7, 8, 9)}  # classes of each client
EXAMPLES, ROUNDS = 96, 6
OVERRIDES = (
    "dataset.input_columns=[image] dataset.label_column=label dataset.label_names=[0,1,2,3,4,5,6,7,8,9] "
    "dataset.image_size=16 model.config.layers=[1,1,1,1] store=all client.epochs=1 run_name=run"
)


def write_folder(folder, split, images, labels):
    folder.mkdir(parents=True)
    pictures = [Picture.fromarray((image / 16 * 255).astype(np.uint8)) for image in images]
    features = Features({"image": Image(), "label": Value("int64")})
    Dataset.from_dict({"image": pictures, "label": labels.tolist()}, features=features).to_parquet(
        folder / f"{split}.parquet"
    )
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Folders of three clients, of different classes, and of the server."""
    folder = tmp_path_factory.mktemp("data")
    digits = load_digits()
    test = np.arange(len(digits.target)) % 5 == 0
    write_folder(folder / "server", "test", digits.images[test], digits.target[test])
    for client, classes in HELD.items():
        chosen = ~test & np.isin(digits.target, classes)
        write_folder(folder / client, "train", digits.images[chosen][:EXAMPLES], digits.target[chosen][:EXAMPLES])
    return folder


def test_a_deployment_traces_its_rounds_whoever_comes_and_goes(data, tmp_path):
    run = tmp_path / "results" / "default" / "run"
    with Deployed(tmp_path / "flower") as flower:

        def log():
            return (run / "run.log").read_text() if (run / "run.log").exists() else ""

        def everything():
            said = [flower.said(path.stem) for path in flower.folder.glob("*.out")]
            return "\n".join([*said, log()])

        nodes = [flower.register(client, client) for client in HELD]
        flower.register("thief", None)
        flower.start_supernode("0", data / "0")
        flower.start_supernode("1", data / "1", partition_id=1)
        run_id = flower.submit(
            f"log_dir='{tmp_path / 'results'}' dataset='hub' num_clients=2 clients_per_round=2 num_rounds={ROUNDS} "
            f"overrides='dataset.name=digits dataset.path={data / 'server'} {OVERRIDES}'"
        )

        def wait_for(happened):
            """Wait for what can only happen while the run goes on."""
            looks = itertools.count(1)

            def over():
                if next(looks) % 20:  # to ask Flower costs more than to look into the log
                    return False
                status, said = flower.status(run_id)
                assert happened() or not status.startswith("finished"), f"{said}\n{everything()}"
                return False

            wait_until(lambda: happened() or over(), everything)

        wait_for(lambda: "round=1/" in log())
        flower.start_supernode("thief", data / "2", partition_id=0)
        flower.start_supernode("2", data / "2")
        check_what_strangers_get(flower, nodes)
        check_who_listens(flower)
        wait_for(lambda: "client 2 is here" in log())
        wait_for(lambda: "a SuperNode cannot take part: it is not client 0: that is key SHA256:" in log())
        wait_for(lambda: re.search("clients sampled: ([01]) 2", log()))
        killed = re.search("clients sampled: ([01]) 2", log()).group(1)
        flower.kill(killed)
        wait_for(lambda: f"client {killed} is dropped" in log())
        wait_until(lambda: flower.status(run_id)[0].startswith("finished"), everything)
        assert flower.status(run_id)[0] == "finished:completed", everything()
    assert set(re.findall(r"client (\d+) is here", log())) == {"0", "1", "2"}
    table = read_csv(run / "rounds.csv")
    assert [row["round"] for row in table] == [str(n) for n in range(1, ROUNDS + 1)]
    assert sum(int(row["clients_dropped"]) for row in table) == 1
    label_counts = torch.tensor(json.loads((run / "label_counts.json").read_text())["label_counts"])
    for client, classes in HELD.items():
        assert label_counts[int(client)].nonzero().flatten().tolist() == list(classes)
        assert label_counts[int(client)].sum() == EXAMPLES
    for row in read_csv(run / "provenance.csv"):
        holders = {client for client, classes in HELD.items() if int(row["label"]) in classes}
        assert (row["traced_client"] in holders) == (row["localized"] == "True")
        assert set(row["expected_clients"].split()) <= holders
        assert int(row["traced_client"]) in (0, 1, 2)
    for n in range(1, ROUNDS + 1):
        _, trace = retrace(run, n)
        again = [{k: str(v) for k, v in row.items()} for row in provenance_rows(n, trace.traced)]
        recorded = [row for row in read_csv(run / "provenance.csv") if row["round"] == str(n)]
        assert [without_nones(row) for row in again] == recorded
    assert (run / "results.json").exists()


def check_what_strangers_get(flower, nodes):
    """Whoever has only the address and the certificate starts no run and is let in nowhere, nor is it as another."""
    home = flower.make_home("stranger", f"{OUTSIDE}:{flower.gate}")
    for command in (("run", str(APP)), ("list",), ("supernode", "register", f"{flower.key('stranger')}.pub")):
        assert "404 Not Found" in flower.ask(*command, home=home), command
    assert {path: status_of(flower, path) for path in PATHS} == dict.fromkeys(PATHS, 404)
    assert answer_of_the_superlink_itself(flower) == "refused"
    for node in nodes:  # 412: the key is not registered; 401: it is not this SuperNode's
        refused = {"RegisterNode": 412, "ActivateNode": 412, "PullMessages": 401}
        assert answers_to_a_supernode(flower, node) == refused
        assert answers_to_a_supernode(flower, node, flower.key("thief")) == {"PullMessages": 401}


def check_who_listens(flower):
    """What a deployment listens on, and what guards it: see ``check_what_strangers_get``."""
    outside = listening(flower.processes["nginx"].pid)
    assert outside == {flower.gate: (OUTSIDE, "nginx")}  # it passes on SuperNodes alone, and those need a key
    inside = listening(flower.processes["superlink"].pid)
    assert {port: host for port, (host, _) in inside.items()} == {flower.port: "127.0.0.1"}  # the machine's users
    for client in ("0", "1"):
        assert [host for host, _ in listening(flower.processes[client].pid).values()] == ["127.0.0.1"]  # those as well


def without_nones(row):
    return {key: "" if value == "None" else value for key, value in row.items()}
