"""Runs trained again without a client: to the bit the run that never had it, or that lost it from the same round on."""

import json
import shutil
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from tests.helpers.commands import call_main, flat
from tests.helpers.configuration import TINY, compose_settings
from tests.helpers.replayed_runs import make_replayed_run
from tests.helpers.runs import SMALL_MODEL, run
from tests.helpers.tables import read_csv, read_untimed
from tracefl.errors import ConfigError
from tracefl.experiment.retraining import retrain
from tracefl.learning.measures import measure, read_measures
from tracefl.learning.models import ModelSpec, build_model
from tracefl.questions.verify import verify
from tracefl.records.checksums import seal
from tracefl.records.run import StoredRun
from tracefl.records.store import RoundStore
from tracefl.replay import main

KEYS = (
    *(*SMALL_MODEL, "num_rounds=4", "store=all", "model.pretrained=false"),
    *("clients_per_round=4", "provenance.counterfactual=false"),
    *("fault=label_flip", "fault.flip={3: 8, 8: 3, 1: 7, 7: 1}", "fault.clients=[1]", "fault.min_examples=1"),
)


@pytest.fixture(scope="module")
def flipped(tmp_path_factory):
    """A run with one faulty client of five, all rounds kept."""
    return run(tmp_path_factory.mktemp("flipped"), *KEYS)


@pytest.fixture
def copied(flipped, tmp_path):
    """The same, in a folder of the test's own."""
    return shutil.copytree(flipped, tmp_path / "logs" / "default" / "run")


def call(monkeypatch, capfd, *arguments):
    capfd.readouterr()  # what the run before said
    return call_main(monkeypatch, capfd, main, "replay", *arguments)


def weights(folder, number):
    """Return the bytes of all weights that a round keeps."""
    place = folder / "rounds" / f"{number:04d}"
    return {str(path.relative_to(place)): path.read_bytes() for path in place.rglob("*.safetensors")}


@pytest.mark.slow
def test_a_round_s_row_says_what_its_model_gets_right(flipped):
    stored, store = StoredRun(flipped), RoundStore(flipped / "rounds")
    model = build_model(ModelSpec.from_json((flipped / "model.json").read_text()))
    rows = read_csv(flipped / "rounds.csv")
    for result, row in zip(store.results(), rows, strict=True):
        model.load_state_dict(store.read_global(result.server_round))
        expected = measure(model, stored.server, 10, stored.fault)
        found = read_measures(result.row, 10)
        assert found.accuracy == expected.accuracy
        assert found.attack_success == expected.attack_success == float(row["attack_success"])
        assert found.class_accuracy == pytest.approx(expected.class_accuracy, abs=1e-6)
        assert row["class_accuracy"] == result.row["class_accuracy"]
    results = json.loads((flipped / "results.json").read_text())
    assert "class_accuracy" not in results["mean"]
    assert results["mean"]["attack_success"] == pytest.approx(sum(float(r["attack_success"]) for r in rows) / 4)


@pytest.mark.slow
@pytest.mark.parametrize("first", [1, pytest.param(3, marks=pytest.mark.long)])
def test_it_is_the_run_without_the_client_to_the_bit(monkeypatch, capfd, copied, tmp_path, first):
    status, out, _ = call(monkeypatch, capfd, copied, f"without_from={first}", "without=1", "how=train", "--json")
    assert status == 0
    found = json.loads(out)  # and nothing else
    folder = copied.with_name(f"run-without-1-from-{first}")
    assert Path(found["trained_run"]) == folder
    scratch = run(tmp_path / "scratch", *KEYS, "without=[1]", f"without_from={first}")
    for number in range(first, 5):
        assert weights(folder, number) == weights(scratch, number)
    assert read_untimed(folder / "rounds.csv") == read_untimed(scratch / "rounds.csv")
    assert verify(folder).problems == verify(scratch).problems == []  # rounds that were copied have no weights
    assert (folder / "provenance.csv").read_text() == (scratch / "provenance.csv").read_text()
    for number in range(1, first):  # until then the run itself
        assert weights(scratch, number) == weights(copied, number)
    note = f"rounds 1 to {first - 1} of the new run are those of {copied}"
    assert found["notes"] == ([note] if first > 1 else [])
    assert ("going on after round 2 of 4" in (folder / "run.log").read_text()) == (first == 3)
    before, after = (list(RoundStore(place / "rounds").results()) for place in (copied, folder))
    for said, old, new in zip(found["rounds"], before[first - 1 :], after[first - 1 :], strict=True):
        assert said["with"]["accuracy"] == old.row["global_accuracy"]
        assert said["without"]["accuracy"] == new.row["global_accuracy"]
        assert said["without"]["attack_success"] == new.row["attack_success"]
        assert said["clients"] == list(new.client_weights)
        assert "1" not in said["clients"]

    # what is there already is shown, not trained again
    written = (folder / "results.json").stat().st_mtime_ns
    status, out, _ = call(monkeypatch, capfd, copied, f"without_from={first}", "without=1", "how=train")
    assert status == 0
    assert "run without client 1 from round" in out
    assert f"{folder} was there already" in flat(out)
    assert (folder / "results.json").stat().st_mtime_ns == written


@pytest.mark.slow
def test_without_the_faulty_client_the_attack_succeeds_less(monkeypatch, capfd, tmp_path):
    files = (f"csv={tmp_path / 'a.csv'}", f"png={tmp_path / 'a.png'}")
    everyone = "clients_per_round=5", "client.epochs=3", "batch_size=8", "num_rounds=2", "provenance=off"
    strong = "fault.flip=null", "fault.all_to=0", "dirichlet_alpha=5.0", "dataset.max_server_examples=200"
    folder = run(tmp_path / "all", *KEYS, *everyone, *strong, "dataset.max_examples_per_client=150")
    status, out, _ = call(monkeypatch, capfd, folder, "without_from=1", "without=1", "--json", *files)
    assert status == 0
    first, last = json.loads(out)["rounds"]  # the later, the less the other clients let through
    assert first["with"]["attack_success"] > first["without"]["attack_success"] + 0.3
    assert last["with"]["attack_success"] > last["without"]["attack_success"]


@pytest.mark.slow
def test_rounds_that_are_not_stored_are_trained_again(monkeypatch, capfd, tmp_path):
    folder = run(tmp_path / "logs", *KEYS, "store=last", "num_rounds=3")
    status, out, err = call(monkeypatch, capfd, folder, "without_from=2", "without=1", "--json")
    assert status == 0, err
    found = json.loads(out)
    assert found["how"] == "train"
    assert "trained again, as the weights of round 2 are not stored" in found["notes"][0]
    assert "the rounds before were trained again too: " in found["notes"][1]
    new = folder.with_name("run-without-1-from-2")
    assert read_untimed(new / "rounds.csv")[0] == read_untimed(folder / "rounds.csv")[0]
    assert all(r["with"]["class_accuracy"] for r in found["rounds"])  # from the run's own rows


def test_settings_are_those_of_the_run_on_this_machine(tmp_path, monkeypatch):
    folder, _ = make_replayed_run(tmp_path, fault=None)
    config = OmegaConf.load(folder / "config.yaml")
    config.total_cpus, config.ray.address = 512, "10.0.0.1:6379"
    OmegaConf.save(config, folder / "config.yaml")
    seal(folder)
    asked = []
    monkeypatch.setattr("tracefl.experiment.retraining.run_settings", lambda settings, **_: asked.append(settings))
    new, note = retrain(StoredRun(folder), "without-2-from-2", 2, ["2"])
    (settings,) = asked
    assert settings.without == (2,)
    assert (settings.without_from, settings.resume) == (2, True)
    assert settings.total_cpus is None
    assert settings.ray.address is None
    assert new == settings.folder == tmp_path / "image-without-2-from-2"
    assert note == f"rounds 1 to 1 of the new run are those of {folder}"
    assert sorted(path.name for path in (new / "rounds" / "0001").iterdir()) == [
        "SHA256SUMS",
        "global.safetensors",
        "round.json",
    ]
    assert RoundStore(new / "rounds").drop_unusable_rounds() == 1
    compose_settings()  # the configuration that was merged is no one else's


def test_a_damaged_start_is_trained_again(tmp_path, monkeypatch):
    folder, _ = make_replayed_run(tmp_path, fault=None)
    with (folder / "rounds" / "0002" / "global.safetensors").open("ab") as file:
        file.write(b"\0")
    monkeypatch.setattr("tracefl.experiment.retraining.run_settings", lambda settings, **_: None)
    _, note = retrain(StoredRun(folder), "without-2-from-3", 3, ["2"])
    assert note.startswith("the rounds before were trained again too: ")
    assert "global.safetensors is no whole safetensors file" in note
    assert [path.name for path in tmp_path.iterdir()] == ["image"]


@pytest.mark.parametrize(
    ("change", "without", "message"),
    [
        (lambda c: c.update(without=[0], without_from=1), ["2"], "is itself without clients .0. from round 1 on"),
        (lambda c: c, ["0", "2", "3"], "leaves 1 of the 4 clients that can take part, and 2 are needed"),
        (lambda c: c.model.update(name="nothing"), ["2"], "nothing"),
    ],
)
def test_what_cannot_be_trained_leaves_nothing(tmp_path, change, without, message):
    folder, _ = make_replayed_run(tmp_path, fault=None)
    config = OmegaConf.load(folder / "config.yaml")
    change(config)
    OmegaConf.save(config, folder / "config.yaml")
    seal(folder)
    with pytest.raises(ConfigError, match=message):
        retrain(StoredRun(folder), "name", 2, without)
    assert [path.name for path in tmp_path.iterdir()] == ["image"]


def test_a_run_that_is_refused_before_it_begins_leaves_nothing(tmp_path, monkeypatch):
    folder, _ = make_replayed_run(tmp_path, fault=None)

    def refuses(settings, **_):
        raise ConfigError("no such data")

    monkeypatch.setattr("tracefl.experiment.retraining.run_settings", refuses)
    with pytest.raises(ConfigError, match="no such data"):
        retrain(StoredRun(folder), "without-2-from-3", 3, ["2"])
    assert [path.name for path in tmp_path.iterdir()] == ["image"]


def test_clients_of_a_deployment_have_their_data_elsewhere(tmp_path):
    folder, _ = make_replayed_run(tmp_path, fault=None)
    counts = json.loads((folder / "label_counts.json").read_text())
    (folder / "label_counts.json").write_text(json.dumps({**counts, "deployed": True}))
    seal(folder)
    with pytest.raises(ConfigError, match="is a deployment's run, whose clients' data are not here"):
        retrain(StoredRun(folder), "name", 2, ["2"])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["without_from=2"], r"without_from=2, and without=\[\] leaves nobody out"),
        (["without=[1]", "without_from=4"], "without_from=4 is above num_rounds=3; lower it"),
        (["without=[1]", "without_from=0"], "without_from must be a whole number of at least 1, got 0"),
    ],
)
def test_a_first_round_that_cannot_be(overrides, message):
    with pytest.raises(ConfigError, match=message):
        compose_settings(*TINY, "num_rounds=3", *overrides)
