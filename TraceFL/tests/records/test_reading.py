"""Every file of a run's folder, missing and damaged in every way: one line that names it."""

import json
import shutil

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file

from tests.helpers.replayed_runs import make_replayed_run
from tracefl.errors import RecordError
from tracefl.records.checksums import write_checksums
from tracefl.records.run import StoredRun
from tracefl.records.status import read_run_state
from tracefl.records.store import RoundStore

TEXTS = [b"", b"\xff\xfe", b"[]", b"{}", b"3", b'{"a": [', b"[[1, 2]]", b'{"row": 3, "label_counts": {}, "name": []}']
FILES = ["config.yaml", "model.json", "fault.json", "label_counts.json", "server.safetensors", "results.json"]
ROUND_FILES = ["round.json", "global.safetensors", "weights/previous_global.safetensors"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    run, _ = make_replayed_run(tmp_path_factory.mktemp("run"), rounds=("02", "23"))
    change = {"client": "2", "examples": 9, "changeable": 7, "changed": 7}
    change |= {"label_counts": [0, 7, 0, 2], "faulty_label_counts": [7, 0, 0, 2]}
    fault = json.loads((run / "fault.json").read_text()) | {"changes": [change]}
    (run / "fault.json").write_text(json.dumps(fault))
    (run / "results.json").write_text(json.dumps({"versions": {}, "hardware": {}}))
    return run


@pytest.fixture
def run(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "run")


def read_all(folder):
    """Read every file of the folder."""
    run = StoredRun(folder)
    assert run.label_counts.shape[1] == len(run.label_names)
    _ = run.fault, run.changes, run.server, run.environment, run.spec
    for number in (1, 2):
        run.round(number)
    list(RoundStore(folder / "rounds").results())


def refused(folder, name):
    with pytest.raises(RecordError) as caught:
        read_all(folder)
    assert len(str(caught.value).splitlines()) == 1
    assert name in str(caught.value)
    assert len(str(caught.value)) < 700
    return str(caught.value)


def test_a_whole_run_is_read(run):
    read_all(run)
    (change,) = StoredRun(run).changes
    assert (change.client, change.changed) == ("2", 7)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file(run, name, text):
    (run / name).write_bytes(text)
    refused(run, name)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("name", ROUND_FILES)
def test_a_damaged_file_of_a_round(run, name, text):
    (run / "rounds" / "0002" / name).write_bytes(text)
    refused(run, name)
    if name == "round.json":
        write_checksums(run / "rounds" / "0002")
        with pytest.raises(
            RecordError,
            match=r"0002/round\.json is damaged or of another version of tracefl: .*; use that version or run again",
        ):
            list(RoundStore(run / "rounds").results())


@pytest.mark.parametrize("name", [name for name in FILES if name != "results.json"])
def test_a_missing_file(run, name):
    (run / name).unlink()
    assert name in refused(run, name)
    (run / name).mkdir()  # something else in its place
    refused(run, name)


def test_a_run_that_is_not_complete_has_no_results(run):
    (run / "results.json").unlink()
    assert StoredRun(run).environment is None


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("row", {"round": 2}, "it lacks global_loss"),
        ("suspects", [{"round": 2}], "it lacks rule"),
        ("traced", [{"label": 3}], "it lacks expected_clients"),
        ("client_weights", None, "round.json is damaged or of another version of tracefl: "),
    ],
)
def test_a_round_that_lacks_something(run, key, value, words):
    path = run / "rounds" / "0002" / "round.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    write_checksums(path.parent)
    with pytest.raises(RecordError, match=words):
        list(RoundStore(run / "rounds").results())


def test_too_few_clients_are_counted(run):
    found = json.loads((run / "label_counts.json").read_text())
    (run / "label_counts.json").write_text(json.dumps(found | {"label_counts": found["label_counts"][:2]}))
    assert r"counts of shape (2, 4) for 4 clients and 4 classes; use" in refused(run, "label_counts.json")


@pytest.mark.parametrize("labels", [torch.tensor([4] * 40), torch.tensor([-1] * 40), torch.zeros(40, 2)])
def test_labels_that_are_no_classes(run, labels):
    save_file(load_file(run / "server.safetensors") | {"labels": labels}, run / "server.safetensors")
    assert "its labels are not numbers of 4 classes" in refused(run, "server.safetensors")


@pytest.mark.parametrize(
    "change", [{"name": "resnet50"}, {"name": "nothing"}, {"num_classes": 7}, {"config": {"x": 1}}]
)
def test_an_architecture_that_is_not_the_weights(run, change):
    spec = json.loads((run / "model.json").read_text())
    (run / "model.json").write_text(json.dumps(spec | change))
    refused(run, "model.json")


@pytest.mark.parametrize("key", ["dataset.kind", "client.lr", "fault", "seed", "store.keep"])
def test_a_configuration_that_lacks_a_key(run, key):
    config = OmegaConf.load(run / "config.yaml")
    group, _, name = key.rpartition(".")
    (config[group] if group else config).pop(name)
    OmegaConf.save(config, run / "config.yaml")
    assert f"{key} is missing" in refused(run, "config.yaml")


@pytest.mark.parametrize("text", [*TEXTS, b'{"state": "running", "rounds_done": 1, "num_rounds": 2, "seconds": "x"}'])
def test_a_damaged_status_is_as_good_as_none(run, text):
    (run / "results.json").unlink()
    (run / "status.json").write_bytes(text)
    assert read_run_state(run, 2).state == "stopped"
