"""Whole runs on tiny data: on Ray, and in this process to the same bits."""

import functools
import json

import numpy as np
import pytest
from safetensors.torch import load_file
from torch.testing import assert_close

from tests.helpers.configuration import TINY, compose_settings
from tests.helpers.misbehaving import misbehaving_app
from tests.helpers.runs import LIGHT_MODEL, run, run_on_ray, run_settings_of
from tests.helpers.tables import read_csv
from tests.helpers.wandb_reader import read_datastore
from tracefl.errors import RoundFailedError
from tracefl.experiment.runner import run_settings
from tracefl.federation import ray_grid
from tracefl.federation.ray_grid import federation_on_ray
from tracefl.questions.retrace import retrace
from tracefl.records.folder import RunFolder
from tracefl.records.tables import provenance_rows

pytestmark = pytest.mark.slow
on_ray = pytest.mark.simulation

DIGITS = (*LIGHT_MODEL, "client.epochs=2")


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """One run on digits that several tests read, with all rounds kept, on one Ray worker."""
    return run_on_ray(tmp_path_factory.mktemp("digits"), *DIGITS, "store=all", "total_cpus=1", "wandb.mode=offline")


@on_ray
def test_a_run_leaves_what_the_design_says(digits):
    names = {path.name for path in digits.iterdir()}
    assert names >= {
        "run.log",
        "config.yaml",
        "rounds.csv",
        "provenance.csv",
        "results.json",
        "rounds",
        "rounds.png",
        "report.html",
        "status.json",
    }
    assert not (digits / ".work").exists()
    table = read_csv(digits / "rounds.csv")
    assert [row["round"] for row in table] == ["1", "2"]
    for row in table:
        for column in ("global_accuracy", "localization_accuracy", "chance_accuracy", "top_holder_accuracy"):
            assert 0 <= float(row[column]) <= 1
        assert -1 <= float(row["counterfactual_correlation"]) <= 1
        assert float(row["train_seconds"]) > 0
    results = json.loads((digits / "results.json").read_text())
    assert results["final"]["global_accuracy"] == float(table[-1]["global_accuracy"])
    assert results["versions"]["flwr"].startswith("1.41")
    assert (results["seed"], results["clients_dropped"]) == (42, 0)
    traced = read_csv(digits / "provenance.csv")
    assert len(traced) == sum(int(row["inputs_traced"]) for row in table)
    assert all(row["label"] == row["predicted"] for row in traced)
    for path in digits.rglob("*"):
        assert path.suffix in (
            "",
            ".log",
            ".yaml",
            ".csv",
            ".json",
            ".png",
            ".html",
            ".safetensors",
            ".wandb",
            ".txt",
        ), path


@on_ray
def test_the_average_is_that_of_the_clients_weighted_by_examples(digits):
    folder = digits / "rounds" / "0001"
    p = json.loads((folder / "round.json").read_text())["client_weights"]
    assert sum(p.values()) == pytest.approx(1)
    clients = {k: load_file(folder / "weights" / f"client-{k}.safetensors") for k in p}
    average = load_file(folder / "global.safetensors")
    for name, tensor in average.items():
        if tensor.is_floating_point():
            assert_close(tensor, sum(p[k] * clients[k][name] for k in p), rtol=1e-5, atol=1e-6)
    assert_close(load_file(digits / "rounds/0002/weights/previous_global.safetensors"), average)


@on_ray
def test_a_stored_round_traces_to_the_same_rows(digits):
    recorded = read_csv(digits / "provenance.csv")
    for n in (1, 2):
        _, trace = retrace(digits, n)
        again = [{k: str(v) for k, v in row.items()} for row in provenance_rows(n, trace.traced)]
        assert again == [row for row in recorded if row["round"] == str(n)]


@on_ray
def test_the_same_round_under_another_preset(digits):
    _, removal = retrace(digits, 2)
    _, artifact = retrace(digits, 2, ["provenance=artifact"])
    _, keys = retrace(
        digits,
        2,
        [
            "provenance.layer_decay=0.9",
            "provenance.weighting=none",
            "provenance.reference=none",
            "provenance.target=predicted",
            "provenance.also=[]",
        ],
    )
    assert [t.input_index for t in artifact.traced] == [t.input_index for t in removal.traced]
    assert artifact.traced == keys.traced
    assert [t.score for t in artifact.traced] != [t.score for t in removal.traced]


@on_ray
def test_wandb_offline_holds_the_rounds(digits):
    (written,) = (digits / "wandb").glob("offline-run-*/run-*.wandb")
    steps = [record.history for record in read_datastore(written) if record.HasField("history")]
    held = [{item.nested_key[0]: item.value_json for item in step.item} for step in steps]
    table = read_csv(digits / "rounds.csv")
    for column in ("global_accuracy", "localization_accuracy", "chance_accuracy"):
        assert [json.loads(step[column]) for step in held] == [float(row[column]) for row in table]


@on_ray
def test_wandb_offline_holds_the_figures_of_the_run(digits):
    (written,) = (digits / "wandb").glob("offline-run-*/run-*.wandb")
    (last,) = [r.history for r in read_datastore(written) if r.HasField("history") and "report/" in str(r.history)]
    held = {"/".join(item.nested_key or [item.key]): json.loads(item.value_json) for item in last.item}
    assert held["_step"] == 2
    assert (written.parent / "files" / held["report/clients_and_classes/path"]).stat().st_size > 1000
    table = json.loads((written.parent / "files" / held["report/traced_inputs/path"]).read_text())
    recorded = read_csv(digits / "provenance.csv")
    found = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    assert len(found) == len(recorded)
    by_input = {(int(row["round"]), int(row["input_index"])): row for row in recorded}
    for row in found:
        same = by_input[row["round"], row["input"]]
        assert (row["label"], row["predicted"], row["traced client"]) == (
            same["label"],
            same["predicted"],
            same["traced_client"],
        )
        assert row["carried by"] == same["responsible"]
        shown = [entry.split(":") for entry in row["contributions"].split()]
        whole = [entry.split(":") for entry in same["contributions"].split()]
        assert [client for client, _ in shown] == [client for client, _ in whole]
        assert [float(value) for _, value in shown] == pytest.approx([float(v) for _, v in whole], rel=0.01)


@on_ray
@pytest.mark.parametrize("run_again", [run_on_ray, run])
def test_the_same_seed_gives_the_same_run_whatever_the_workers(digits, tmp_path, run_again):
    """On two Ray workers, and in this process."""
    again = run_again(tmp_path, *DIGITS, "store=last", "total_cpus=2")
    assert (again / "provenance.csv").read_text() == (digits / "provenance.csv").read_text()
    seconds = {name for name in read_csv(again / "rounds.csv")[0] if name.endswith("_seconds")}

    def measured(folder):
        return [{k: v for k, v in row.items() if k not in seconds} for row in read_csv(folder / "rounds.csv")]

    assert measured(again) == measured(digits)
    for file in (again / "rounds" / "0002" / "weights").iterdir():
        assert file.read_bytes() == (digits / "rounds" / "0002" / "weights" / file.name).read_bytes(), file.name
    assert not (again / "rounds" / "0001" / "weights").exists()


@on_ray
def test_a_complete_run_is_shown_and_not_run_again(digits, capsys):
    before = (digits / "results.json").stat().st_mtime_ns
    settings = compose_settings(*TINY, *DIGITS, f"log_dir={digits.parent.parent}", "run_name=run", "store=all")
    run_settings(settings)
    assert "already complete" in capsys.readouterr().out
    assert (digits / "results.json").stat().st_mtime_ns == before


@on_ray
def test_clients_that_fail_are_dropped_and_the_run_goes_on(monkeypatch, tmp_path):
    on_ray = functools.partial(federation_on_ray, app=misbehaving_app(bad_round=1))
    monkeypatch.setattr(ray_grid, "federation_on_ray", on_ray)
    folder = run_on_ray(tmp_path, *LIGHT_MODEL, "clients_per_round=5", "store=all", "total_cpus=1")
    first, second = (json.loads((folder / f"rounds/000{n}/round.json").read_text()) for n in (1, 2))
    assert set(first["client_weights"]) == {"0", "4"}
    assert set(first["dropped"]) == {"1", "2", "3"}
    # as in_process.py words it too
    assert first["dropped"]["1"] == "Exception ClientAppException occurred. Message: the disk of client 1 is full"
    assert "not finite, first in classifier.bias" in first["dropped"]["3"]
    assert set(second["client_weights"]) == {"0", "1", "2", "3", "4"}  # a dead worker costs later rounds nothing
    assert [row["clients_dropped"] for row in read_csv(folder / "rounds.csv")] == ["3", "0"]
    log = (folder / "run.log").read_text()
    assert "client 2 is dropped" in log
    assert json.loads((folder / "results.json").read_text())["clients_dropped"] == 3
    assert "dropped: client 1 (" in (folder / "report.html").read_text()


def test_too_few_clients_stop_the_run_and_earlier_rounds_stay(tmp_path):
    overrides = (*LIGHT_MODEL, "clients_per_round=5", "strategy.min_clients=3")
    with pytest.raises(RoundFailedError, match=r"round 2: 2 of 5 clients answered, .*min_clients is 3; .*client 1"):
        run(tmp_path, *overrides, app=misbehaving_app(bad_round=2, dies=False))
    folder = tmp_path / "default" / "run"
    assert [row["round"] for row in read_csv(folder / "rounds.csv")] == ["1"]
    assert {row["round"] for row in read_csv(folder / "provenance.csv")} == {"1"}
    assert retrace(folder)[0] == 1
    assert not (folder / "results.json").exists()
    assert "failed after 1 of 2 rounds: round 2: 2 of 5 clients answered" in (folder / "report.html").read_text()
    assert "stopped: round 2" in (folder / "run.log").read_text()
    assert not (folder / ".work").exists()


@pytest.mark.parametrize(
    ("dataset", "shape", "classes"),
    [("organamnist", (28, 28), 11), pytest.param("pathmnist", (28, 28, 3), 9, marks=pytest.mark.long)],
)
def test_medmnist_runs_from_a_local_file(tmp_path, dataset, shape, classes):
    draw = np.random.default_rng(0)
    arrays = {}
    for split, n in (("train", 900), ("val", 22), ("test", 66)):
        labels = np.arange(n) % classes
        noise = draw.integers(0, 60, (n, *shape), dtype=np.uint8)
        bright = (labels * 190 // classes).astype(np.uint8).reshape(-1, *[1] * len(shape))
        arrays |= {f"{split}_images": noise + bright, f"{split}_labels": labels[:, None].astype(np.uint8)}
    np.savez(tmp_path / f"{dataset}.npz", **arrays)
    folder = run(
        tmp_path,
        "++model.config.layers=[1,1,1,1]",
        f"dataset={dataset}",
        f"dataset.root={tmp_path}",
        "num_rounds=1",
        "strategy=fedprox",
        "dirichlet_alpha=100",
    )
    assert len(json.loads((folder / "results.json").read_text())["classes"]) == classes
    assert read_csv(folder / "rounds.csv")


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(
            ("model=gpt", "model.config.n_layer=1", "model.config.n_embd=32", "model.config.n_head=2"),
            marks=pytest.mark.long,
        ),
        (
            "model=bert",
            "model.config.num_hidden_layers=1",
            "model.config.hidden_size=32",
            "model.config.num_attention_heads=2",
            "model.config.intermediate_size=64",
        ),
    ],
)
def test_text_models_run_and_trace_again(tmp_path, model):
    overrides = [f"++{o}" if o.startswith("model.config") else o for o in model]
    folder = run(
        tmp_path,
        *overrides,
        "model.pretrained=false",
        "dataset=synthetic_text",
        "dataset.max_tokens=32",
        "client.lr=0.003",
        "client.epochs=2",
    )
    recorded = [row for row in read_csv(folder / "provenance.csv") if row["round"] == "2"]
    _, trace = retrace(folder, 2)
    assert [{k: str(v) for k, v in row.items()} for row in provenance_rows(2, trace.traced)] == recorded
    assert (folder / "tokenizer").is_dir()


def test_real_data_from_a_folder_traced_every_second_round(tmp_path, shared_data):
    overrides = (
        *LIGHT_MODEL,
        "dataset=mnist",
        f"dataset.path={shared_data / 'mnist'}",
        "provenance.every=2",
        "provenance.target=label",
    )
    folder = run(tmp_path, *overrides, "provenance.counterfactual=false", "client.epochs=2")
    first, second = read_csv(folder / "rounds.csv")
    assert (first["localization_accuracy"], first["inputs_traced"]) == ("", "0")
    assert {row["round"] for row in read_csv(folder / "provenance.csv")} <= {"2"}
    assert second["counterfactual_agreement"] == ""


def test_an_unfinished_run_of_the_same_configuration_is_run_again(tmp_path):
    place = tmp_path / "default" / "run"
    place.mkdir(parents=True)
    settings = run_settings_of(tmp_path, *LIGHT_MODEL, "num_rounds=1", "provenance=off", "backend=in_process")
    unfinished = RunFolder(place, settings)
    unfinished.begin(resume=False)
    unfinished.close()
    (place / "rounds.csv").write_text("left by a kill")
    run_settings(settings)
    assert [row["round"] for row in read_csv(place / "rounds.csv")] == ["1"]
