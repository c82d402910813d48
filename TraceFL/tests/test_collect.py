"""Runs gathered from made folders with known numbers."""

import json
import shutil
import time

import pytest
from omegaconf import OmegaConf

from tests.helpers.configuration import compose_config
from tests.helpers.finished import finish
from tests.helpers.round_files import write_rounds
from tests.helpers.tables import read_csv, zero_row
from tracefl.conf.run_names import run_folders
from tracefl.paper.grid_points import point_of
from tracefl.paper.published import Published, find_published
from tracefl.records.checksums import seal, write_checksums
from tracefl.records.claim import Claim
from tracefl.records.settings import read_keys

SETTING = ("experiment=figure2", "model=resnet18", "dataset=mnist", "num_rounds=2", "dirichlet_alpha=0.1")


def config_of(*overrides):
    return OmegaConf.to_container(compose_config(*overrides), resolve=True)


def make_run(logs, rounds, *overrides, state="done", seconds=100.0, error=None):
    """Write a run's folder; ``rounds`` holds (global, localization, chance, holder, agreement) of each round."""
    config = config_of(*SETTING, f"log_dir={logs}", *overrides)
    folder = read_keys(config).folder
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(config)))
    columns = (
        "global_accuracy",
        "localization_accuracy",
        "chance_accuracy",
        "top_holder_accuracy",
        "counterfactual_agreement",
    )
    rows = [zero_row(round=n, **dict(zip(columns, values, strict=True))) for n, values in enumerate(rounds, 1)]
    write_rounds(folder, rows)
    status = {
        "state": state,
        "rounds_done": len(rounds),
        "num_rounds": config["num_rounds"],
        "seconds": seconds,
        "seconds_a_round": None,
        "updated": time.time(),
        "error": error,
    }
    (folder / "status.json").write_text(json.dumps(status))
    seal(folder)
    if state == "done":
        finish(folder, len(rounds), seconds=seconds)
    return folder


def test_means_over_rounds_and_seeds(collect, tmp_path):
    # seed 1: localization (0.9 + 0.7) / 2 = 0.8, worst 0.7 where chance was 0.3; seed 2: (1.0 + 0.8) / 2 = 0.9
    make_run(tmp_path, [(0.5, 0.9, 0.2, 0.6, 0.5), (0.4, 0.7, 0.3, 0.4, 0.7)], "seed=1", seconds=100)
    make_run(tmp_path, [(0.6, 1.0, 0.4, 0.8, 0.9), (0.7, 0.8, 0.6, 0.6, 0.5)], "seed=2", seconds=200)
    status, out, _ = collect(tmp_path)
    assert status == 0
    first, second = sorted(read_csv(tmp_path / "collected.csv"), key=lambda row: row["seed"])
    assert float(first["localization_accuracy"]) == pytest.approx(0.8)
    assert float(first["chance_accuracy"]) == pytest.approx(0.25)
    assert float(first["worst_round_localization_accuracy"]) == 0.7
    assert float(first["worst_round_chance_accuracy"]) == 0.3
    assert float(first["top_holder_accuracy"]) == pytest.approx(0.5)
    assert float(first["counterfactual_agreement"]) == pytest.approx(0.6)
    assert (float(first["best_global_accuracy"]), float(first["seconds"])) == (0.5, 100.0)
    assert (first["model"], first["dirichlet_alpha"], first["provenance"]) == ("resnet18", "0.1", "artifact")
    assert float(second["localization_accuracy"]) == pytest.approx(0.9)
    (line,) = [line for line in out.splitlines() if "resnet18 mnist alpha 0.1" in line]
    # means of both seeds: localization 0.85, chance (0.25 + 0.5) / 2, worst 0.7, holder (0.5 + 0.7) / 2,
    # agreement (0.6 + 0.7) / 2, best global (0.5 + 0.7) / 2, 150 s
    for text in (" 2 ", "85.0 (37.5)", "70.0 (30.0)", "60.0", "65.0"):
        assert text in line, text
    assert "2 runs done, 0 unfinished, 0 damaged" in out


@pytest.mark.parametrize("width", ["100", None, "80"])
def test_the_table_fits_the_width_and_says_where_the_rest_is(collect, tmp_path, monkeypatch, width):
    make_run(tmp_path, [(0.5, 1.0, 0.375, 0.75, 0.25)] * 50, "num_rounds=50")  # which the paper has too
    make_run(tmp_path, [(0.5, 1.0, 1.0, 1.0, 1.0)] * 2, "client.lr=0.5", "dirichlet_alpha=0.123456")
    monkeypatch.delenv("COLUMNS") if width is None else monkeypatch.setenv("COLUMNS", width)
    status, out, _ = collect(tmp_path)
    assert status == 0
    widest = max(len(line) for line in out.splitlines() if str(tmp_path) not in line)
    assert widest <= int(width or 100)  # 100 where there is no terminal
    assert "…" not in out
    for text in ("100.0 (37.5)", "100.0 (100.0)", "75.0", "25.0", "2m", "82.0", "54.7", "published"):
        assert text in out, text
    assert "The CSV has all columns" in " ".join(out.split())


def test_settings_are_kept_apart(collect, tmp_path):
    rounds = [(0.5, 0.9, 0.2, 0.6, 0.5)] * 2
    for other in ("dirichlet_alpha=0.2", "provenance=removal", "num_clients=50", "client.lr=0.5"):
        make_run(tmp_path, rounds, other)
    _, out, _ = collect(tmp_path)
    assert len([line for line in out.splitlines() if "resnet18 mnist" in line]) == 4


def test_unfinished_runs_are_named_and_not_in_the_table(collect, tmp_path):
    make_run(tmp_path, [(0.5, 0.9, 0.2, 0.6, 0.5)] * 2)
    stopped = make_run(tmp_path, [(0.5, 0.1, 0.2, 0.6, 0.5)], "seed=2", state="stopped")
    make_run(tmp_path, [], "seed=3", state="failed", error="the disk is full")
    running = make_run(tmp_path, [(0.5, 0.1, 0.2, 0.6, 0.5)], "seed=4", state="running")
    claim = Claim(running)
    try:
        status, out, _ = collect(tmp_path, f"csv={tmp_path / 'out.csv'}")
    finally:
        claim.release()
    assert status == 0
    assert f"stopped: figure2/{stopped.name}, 1 of 2 rounds" in out
    assert "0 of 2 rounds (the disk is full)" in out
    assert f"running: figure2/{running.name}" in out
    assert "1 run done, 3 unfinished, 0 damaged" in out
    assert "90.0 (20.0)" in out
    assert "10.0" not in out
    states = {row["seed"]: row["state"] for row in read_csv(tmp_path / "out.csv")}
    assert states == {"42": "done", "2": "stopped", "3": "failed", "4": "running"}


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("config.yaml", "a: [", "config.yaml is damaged"),
        ("config.yaml", "a: 1", "config.yaml is damaged or of another version of tracefl: exp_key is missing"),
        ("config.yaml", "- 3", "is no run's configuration"),
        ("rounds/0002/round.json", "{}", "0002/round.json is damaged: its checksum is not the one in SHA256SUMS"),
        ("rounds/0001/SHA256SUMS", "", "0001/SHA256SUMS is damaged: its checksum is not the one in SHA256SUMS"),
        ("results.json", "[]", "results.json is damaged or of another version of tracefl: it should be an object"),
        ("results.json", "{}", "results.json is damaged or of another version of tracefl: it lacks run"),
        ("results.json", '{"seed": ', "it is no JSON"),
    ],
)
def test_a_damaged_run_is_named_and_left_out(collect, tmp_path, file, text, words):
    make_run(tmp_path, [(0.5, 0.9, 0.2, 0.6, 0.5)] * 2)
    damaged = make_run(tmp_path, [(0.5, 0.9, 0.2, 0.6, 0.5)] * 2, "seed=7")
    (damaged / file).write_text(text)
    if "/" not in file:
        seal(damaged)
    status, out, _ = collect(tmp_path)
    assert status == 0
    (line,) = [line for line in out.splitlines() if line.startswith("left out: ")]
    assert damaged.name in line
    assert words in line
    assert "1 run done, 0 unfinished, 1 damaged" in out
    assert len(read_csv(tmp_path / "collected.csv")) == 1


def lose_the_last(run):
    shutil.rmtree(run / "rounds" / "0002")


def lose_the_first(run):
    write_rounds(run, [{"round": 3}])
    shutil.rmtree(run / "rounds" / "0001")


def forget_a_column(run):
    path = run / "rounds" / "0001" / "round.json"
    path.write_text(path.read_text().replace('"localization_accuracy"', '"localisation"'))
    write_checksums(path.parent)
    seal(run)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lose_the_last, "round 2 is missing"),
        (lose_the_first, "round 1 is missing"),
        (forget_a_column, "it lacks row.localization_accuracy"),
    ],
)
def test_a_run_that_lacks_something_is_named_and_left_out(collect, tmp_path, damage, words):
    make_run(tmp_path, [(0.5, 0.9, 0.2, 0.6, 0.5)] * 2)
    damaged = make_run(tmp_path, [(0.5, 0.9, 0.2, 0.6, 0.5)] * 2, "seed=7")
    damage(damaged)
    _, out, _ = collect(tmp_path)
    (line,) = [line for line in out.splitlines() if line.startswith("left out: ")]
    assert damaged.name in line
    assert words in line


def test_what_is_collected_was_checked_and_the_tables_are_not_read(collect, tmp_path):
    run = make_run(tmp_path, [(0.5, 0.9, 0.2, 0.6, 0.5)] * 2)
    for table in ("rounds.csv", "provenance.csv", "suspects.csv"):
        (run / table).write_text("round,localization_accuracy\n1,0.1\n")
    assert collect(tmp_path)[0] == 0
    assert read_csv(tmp_path / "collected.csv")[0]["localization_accuracy"] == "0.9"


def test_a_run_without_tracing_has_no_localization(collect, tmp_path):
    make_run(tmp_path, [(0.5, "", "", "", "")] * 2, "provenance=off")
    status, out, _ = collect(tmp_path)
    assert status == 0
    assert "- (-)" in out
    assert read_csv(tmp_path / "collected.csv")[0]["localization_accuracy"] == ""


@pytest.mark.parametrize("arguments", [["{tmp}/nowhere"], ["{tmp}"], ["{tmp}", "json=x"], ["{tmp}", "csv="]])
def test_bad_input_is_one_line_and_status_2(collect, tmp_path, arguments):
    status, _, err = collect(*[argument.format(tmp=tmp_path) for argument in arguments])
    assert status == 2
    assert len(err.strip().splitlines()) == 1
    assert err.startswith("tracefl: ")
    assert list(tmp_path.iterdir()) == []


def test_without_a_folder_the_runs_below_logs_are_collected(collect, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_run(tmp_path / "logs", [(0.5, 0.9, 0.2, 0.6, 0.5)] * 2)
    status, out, err = collect()
    assert (status, err) == (0, "tracefl: reading logs\n")
    assert "1 run done, 0 unfinished, 0 damaged; all in logs/collected.csv" in out


def test_a_run_s_own_folders_and_miniatures_are_no_runs(collect, tmp_path):
    run = make_run(tmp_path, [(0.5, 0.9, 0.2, 0.6, 0.5)] * 2)
    wandb = run / "wandb" / "offline-run-1" / "files"
    wandb.mkdir(parents=True)
    (wandb / "config.yaml").write_text("a: 1")
    make_run(tmp_path / "smoke" / "training", [(0.5, 0.1, 0.2, 0.6, 0.5)] * 2)
    own = make_run(tmp_path, [(0.5, 0.9, 0.2, 0.6, 0.5)] * 2, "exp_key=smoke")
    assert {run, own} < set(run_folders(tmp_path))
    _, out, _ = collect(tmp_path)
    assert "2 runs done, 0 unfinished, 0 damaged" in out
    assert "1 run done" in collect(tmp_path / "smoke" / "training")[1]


def test_published_numbers_stand_beside_the_same_setting(collect, tmp_path):
    # from the paper's artifact: ResNet-18, MNIST, alpha 0.1, 100 clients, 10 a round, 50 rounds: 81.98, 25.0, 54.69
    make_run(tmp_path, [(0.5, 0.9, 0.2, 0.6, 0.5)] * 50, "num_rounds=50")
    make_run(tmp_path, [(0.5, 0.9, 0.2, 0.6, 0.5)] * 2)
    _, out, _ = collect(tmp_path)
    published, other = (next(line for line in out.splitlines() if f"{n} rounds" in line) for n in (50, 2))
    for text in ("82.0", "25.0", "54.7"):
        assert text in published
        assert text not in other
    assert "random weights" not in published
    make_run(tmp_path, [(0.5, 0.9, 0.2, 0.6, 0.5)] * 2, "model.pretrained=false")
    assert "2 rounds, artifact, random weights" in collect(tmp_path)[1]
    by_rounds = {row["num_rounds"]: row for row in read_csv(tmp_path / "collected.csv")}
    assert by_rounds["50"]["published_localization_accuracy"] == "0.8198"
    assert by_rounds["2"]["published_localization_accuracy"] == ""


def test_published_runs_with_noise():
    def published(*overrides):
        return find_published(point_of(read_keys(config_of("experiment=table3", "num_clients=100", *overrides))))

    assert published("privacy=none") == Published(1.0, 1.0, 0.9849)  # Figure 3 at alpha 0.3
    central = ("privacy=central", "privacy.clipping_norm=15")
    assert published(*central, "privacy.noise_multiplier=0.003") == Published(1.0, 1.0, 0.9736)  # Table II
    assert published(*central, "privacy.noise_multiplier=0.5") is None
    assert published("privacy=dp_sgd", "privacy.noise_multiplier=0.003") is None
