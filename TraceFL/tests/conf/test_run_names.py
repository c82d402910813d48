"""Runs named by their folder, by the beginning of a name, and as ``last``."""

import os
from pathlib import Path

import pytest

from tracefl.conf.run_names import below_roots, find_run, known_runs, last_run, replay_name, runs_folder
from tracefl.errors import RecordError


@pytest.fixture
def place(monkeypatch, tmp_path):
    """Return a function that makes runs below the current folder, each later than the one before."""
    monkeypatch.chdir(tmp_path)
    made = []

    def make(*paths, written="config.yaml"):
        for path in paths:
            run = tmp_path / path
            run.mkdir(parents=True, exist_ok=True)
            (run / "config.yaml").touch()
            os.utime(run / "config.yaml", (0, 0))
            (run / written).touch()
            made.append(run)
            os.utime(run / written, (len(made), len(made)))

    return make


def found(text):
    return str(find_run(text))


def test_a_folder(place, tmp_path):
    place("logs/default/run", "elsewhere/last", "last")
    assert found("logs/default/run") == "logs/default/run"
    assert found("./logs/default/run/") == "logs/default/run"
    assert found(str(tmp_path / "elsewhere" / "last")) == str(tmp_path / "elsewhere" / "last")
    assert found("last") == "last"  # a folder that is a run wins


def test_last_is_the_run_that_was_written_last_at_any_depth(place):
    place("logs/default/a", "results/exp_1/b", "logs/smoke/training/deep/c", "elsewhere/default/d")
    assert found("last") == "logs/smoke/training/deep/c"
    assert [run.name for run in known_runs()] == ["c", "b", "a"]
    place("logs/default/a", written="status.json")
    assert found("last") == "logs/default/a"
    place("results/exp_1/b", written="results.json")
    assert found("last") == "results/exp_1/b"


@pytest.mark.parametrize("without", [["3"], ["3", "17"], [*map(str, range(12))]])
def test_what_a_replay_trained_is_not_last(place, without):
    replayed = f"logs/default/a-{replay_name(without, 2)}"
    place("logs/default/b", "logs/default/a", replayed)
    assert found("last") == "logs/default/a"
    assert found(f"{replayed[:-1]}") == replayed
    place("logs/default/b", f"{replayed}-{replay_name(['5'], 1)}", written="status.json")
    assert found("last") == "logs/default/b"


def test_a_run_of_ones_own_without_a_client_is_last(place):
    place("logs/default/a", "logs/default/without-3-from-1", "logs/default/a-without-3")
    assert found("last") == "logs/default/a-without-3"
    place("logs/default/without-3-from-1")
    assert found("last") == "logs/default/without-3-from-1"


def test_where_only_replays_are_left_none_is_last(place):
    place("logs/default/a-without-3-from-1")
    assert last_run() is None
    with pytest.raises(RecordError, match="there is no run below .*, or give a run's folder"):
        find_run("last")


def test_what_lies_in_a_run_or_is_hidden_is_no_run(place, tmp_path):
    place("logs/default/a", "logs/default/a/wandb/files", "logs/default/.b.partial", "logs/.submitit/c")
    (tmp_path / "logs" / "default" / "notes").mkdir()
    assert found("last") == "logs/default/a"
    with pytest.raises(RecordError, match="'logs/default/notes' is no run's folder: it has no config.yaml"):
        find_run("logs/default/notes")


@pytest.mark.parametrize(
    "text", ["res", "resnet18-digits", "logs/default/res", "./logs/default/res", "default/res", "logs/d"]
)
def test_the_beginning_of_a_name_or_path(place, text):
    place("logs/default/resnet18-digits-1", "logs/other/densenet121-2", "results/exp_1/gpt-3")
    assert found(text) == "logs/default/resnet18-digits-1"


def test_the_beginning_of_a_path_that_leads_elsewhere(place, tmp_path, monkeypatch):
    place("elsewhere/default/resnet18", "elsewhere/default/gpt")
    assert found("elsewhere/default/res") == "elsewhere/default/resnet18"
    assert found(str(tmp_path / "elsewhere/default/g")) == str(tmp_path / "elsewhere/default/gpt")
    monkeypatch.chdir(tmp_path / "elsewhere" / "default")
    assert found("res") == "resnet18"


def test_a_whole_name_before_longer_ones(place):
    place("logs/default/seed1", "logs/default/seed10")
    assert found("seed1") == "logs/default/seed1"
    assert found("default/seed1") == "logs/default/seed1"


def test_the_path_below_the_folders_of_runs_leads_back(place, tmp_path):
    place("logs/a/seed1", "logs/b/seed1", "logs/b/seed10", "results/smoke/training/c", "elsewhere/d/run")
    for run in ("logs/b/seed1", "results/smoke/training/c"):
        assert found(below_roots(Path(run))) == run
        assert below_roots(tmp_path / run) == below_roots(Path(run))
    assert below_roots(Path("elsewhere/d/run")) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("run", "'run' is the beginning of 7 runs: logs/a/run6, logs/a/run5, .*, logs/a/run2, ...; give more of one"),
        ("same", "'same' is the beginning of 2 runs: logs/b/same, logs/a/same; give more of one"),
        ("run7", "no run below logs/ or results/ of .* begins with 'run7'; did you mean 'run[0-6]' or .*"),
        ("rvn", "begins with 'rvn'; did you mean"),
        ("xyz", "begins with 'xyz'; give a run's folder, or `last`"),
        ("logs", "'logs' is no run's folder, but that of 9 runs: .*, ...; give one of them"),
        ("logs/b", "'logs/b' is no run's folder, but that of 1 run: logs/b/same; give one of them"),
        ("nowhere/run", "begins with 'nowhere/run'"),
    ],
)
def test_what_names_no_run_or_several(place, text, words):
    place(*(f"logs/a/run{number}" for number in range(7)), "logs/a/same", "logs/b/same")
    with pytest.raises(RecordError, match=words):
        find_run(text)


def test_without_a_run_the_last_is_none(place, tmp_path):
    with pytest.raises(RecordError, match=f"there is no run below logs/ or results/ of {tmp_path}; make one"):
        find_run("last")


def test_the_folder_of_the_runs(place):
    with pytest.raises(RecordError, match="there is no folder logs/ or results/ of .*; give the folder of the runs"):
        runs_folder()
    place("results/exp_1/run")
    assert str(runs_folder()) == "results"
    place("logs/default/run")
    assert str(runs_folder()) == "logs"
    assert str(runs_folder("exp_1")) == "results"
    with pytest.raises(RecordError, match="there is no folder 'exp_2' in logs/ or results/"):
        runs_folder("exp_2")
