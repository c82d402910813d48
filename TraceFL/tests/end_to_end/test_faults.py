"""Whole runs with faulty clients on tiny data."""

import json

import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

from tests.helpers.runs import LIGHT_MODEL, run
from tests.helpers.tables import read_csv
from tracefl.errors import DataError
from tracefl.learning.faults import Fault

pytestmark = pytest.mark.slow

COMMON = (
    *LIGHT_MODEL,
    "clients_per_round=5",
    "store=all",
    "provenance.counterfactual=false",
    "provenance.inputs=correct",  # so that rounds compare
)
FAULTY = ("fault.clients=[1]", "fault.from_round=2", "fault.min_examples=1")


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    """The run whose clients are all honest; every other run here is the same but for its fault."""
    return run(tmp_path_factory.mktemp("honest"), *COMMON)


def weights(folder, n):
    """Return what every client sent in a round."""
    return {
        path.stem.removeprefix("client-"): load_file(path)
        for path in (folder / f"rounds/000{n}/weights").glob("client-*.safetensors")
    }


def differing(folder, other, n):
    """Return the clients that sent other weights in a round of two runs."""
    here, there = weights(folder, n), weights(other, n)
    assert set(here) == set(there) == set("01234")
    return {k for k in here if any(not torch.equal(tensor, there[k][name]) for name, tensor in here[k].items())}


def check_what_is_left(folder, name):
    written = json.loads((folder / "fault.json").read_text())
    assert Fault.from_json(json.dumps(written)).clients == ("1",)
    assert (written["name"], written["from_round"]) == (name, 2)
    assert json.loads((folder / "results.json").read_text())["fault"] == written
    assert "fault: client 1 from round 2: " in (folder / "run.log").read_text()
    (change,) = written["changes"]
    true = json.loads((folder / "label_counts.json").read_text())["label_counts"][1]
    assert change["label_counts"] == true
    assert sum(change["faulty_label_counts"]) == change["examples"] == sum(true)
    assert not (folder / ".work").exists()
    return change


@pytest.mark.parametrize("name", ["label_flip", "backdoor", pytest.param("weight_noise", marks=pytest.mark.long)])
def test_a_client_is_honest_before_its_round_and_faulty_from_it_on(honest, tmp_path, name):
    folder = run(tmp_path, *COMMON, f"fault={name}", *FAULTY)
    assert differing(folder, honest, 1) == set()
    assert differing(folder, honest, 2) == {"1"}  # round 2 starts from the same global model
    change = check_what_is_left(folder, name)
    assert (folder / "label_counts.png").exists() == (name != "weight_noise")
    if name == "label_flip":
        assert change["faulty_label_counts"] == [change["examples"], *[0] * 9]  # all to 0 where nothing else is said
    ours, theirs = read_csv(folder / "rounds.csv"), read_csv(honest / "rounds.csv")
    assert ours[0]["global_accuracy"] == theirs[0]["global_accuracy"]
    assert ours[0]["train_loss"] == theirs[0]["train_loss"]
    # Who holds a label is asked of the true labels.
    assert ours[0]["chance_accuracy"] == theirs[0]["chance_accuracy"]


def test_a_free_rider_returns_the_global_weights_and_keeps_its_part_of_the_average(honest, tmp_path):
    folder = run(tmp_path, *COMMON, "fault=free_rider", *FAULTY, "fault.scale=0.001")
    assert differing(folder, honest, 1) == set()
    assert differing(folder, honest, 2) == {"1"}
    check_what_is_left(folder, "free_rider")
    start = load_file(folder / "rounds/0002/weights/previous_global.safetensors")
    for name, tensor in weights(folder, 2)["1"].items():
        if "running" in name or "num_batches" in name:
            assert torch.equal(tensor, start[name]), name
        else:
            assert_close(tensor, start[name], rtol=0, atol=0.006 * float(start[name].square().mean().sqrt()))
    p = [json.loads((f / "rounds/0002/round.json").read_text())["client_weights"] for f in (folder, honest)]
    assert p[0] == p[1]
    assert 0 < float(read_csv(folder / "rounds.csv")[1]["train_loss"]) < 10


def test_dp_sgd_and_a_trigger_in_texts_go_with_faults(tmp_path):
    folder = run(
        tmp_path,
        "model=gpt",
        "++model.config.n_layer=1",
        "++model.config.n_embd=16",
        "++model.config.n_head=2",
        "model.pretrained=false",
        "model.tokenizer_vocab=300",
        "dataset=synthetic_text",
        "dataset.max_tokens=16",
        "privacy=dp_sgd",
        "fault=backdoor",
        "fault.num_clients=2",
        "fault.min_examples=1",
        "wandb.mode=offline",
    )
    fault = Fault.from_json((folder / "fault.json").read_text())
    assert len(fault.clients) == 2
    assert fault.trigger is not None
    assert fault.trigger.token is not None
    assert fault.trigger.token > 2  # 0 to 2 are special
    assert all(change["changed"] > 0 for change in json.loads((folder / "fault.json").read_text())["changes"])


def test_flips_go_with_central_privacy_and_a_client_with_too_few_is_replaced(tmp_path):
    flip = (*LIGHT_MODEL, "fault=label_flip", "fault.flip={1: 0, 2: 0}", "fault.min_examples=9", "wandb.mode=offline")
    folder = run(tmp_path / "one", *flip, "privacy=central", "num_rounds=1", "dirichlet_alpha=0.3", "fault.clients=[4]")
    fault = Fault.from_json((folder / "fault.json").read_text())
    assert fault.flips == {1: 0, 2: 0}
    assert ("is faulty in its place" in (folder / "run.log").read_text()) == (fault.clients != ("4",))
    with pytest.raises(DataError, match="no other client holds as many"):
        run(tmp_path / "two", *flip, "fault.min_examples=1000")
