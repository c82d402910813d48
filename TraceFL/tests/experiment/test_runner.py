"""A run from its configuration to what it leaves, with clients that do not train."""

import signal
from collections import Counter
from concurrent.futures import Future
from contextlib import contextmanager

import pytest

from tests.helpers.configuration import TINY, compose_settings
from tests.helpers.plans import ScriptedFederation
from tests.helpers.tables import read_csv
from tracefl.errors import RecordError, RoundFailedError, RunStopped
from tracefl.experiment.runner import run_settings
from tracefl.records.checksums import CheckedFiles


def settings(tmp_path, *overrides):
    return compose_settings(*TINY, f"log_dir={tmp_path}", "run_name=run", "provenance.max_inputs=3", *overrides)


@pytest.fixture
def readings(monkeypatch):
    """Count the readings of each round.json by its round."""
    counted, read = Counter(), CheckedFiles.read

    def counting(files, name, most_bytes):
        if name == "round.json":
            counted[int(files.folder.name)] += 1
        return read(files, name, most_bytes)

    monkeypatch.setattr(CheckedFiles, "read", counting)
    return counted


def test_each_round_is_read_once_for_results_figures_page_and_terminal(tmp_path, readings, capsys):
    run_settings(settings(tmp_path), ScriptedFederation(("0", "1"), 2))
    folder = tmp_path / "default" / "run"
    assert readings == {1: 1, 2: 1}
    assert {"results.json", "rounds.png", "report.html"} <= {path.name for path in folder.iterdir()}
    assert "report: " in capsys.readouterr().out


def test_a_resumed_session_reads_each_round_once_and_that_it_goes_on_from_twice(tmp_path, readings):
    with pytest.raises(RoundFailedError, match="everybody is gone"):
        run_settings(settings(tmp_path), ScriptedFederation(("0", "1"), 1))
    assert readings == {1: 1}  # for the page
    readings.clear()
    run_settings(settings(tmp_path, "resume=true"), ScriptedFederation(("0", "1"), 1))
    assert readings == {1: 2, 2: 1}  # first to see whether its model is of use
    assert [row["round"] for row in read_csv(tmp_path / "default" / "run" / "rounds.csv")] == ["1", "2"]


def test_a_complete_run_is_shown_again_and_not_run(tmp_path, capsys):
    run_settings(settings(tmp_path), ScriptedFederation(("0", "1"), 2))
    first = capsys.readouterr().out
    run_settings(settings(tmp_path), None)
    again = capsys.readouterr().out
    assert "already complete, nothing was run; overwrite=true runs it again" in again
    shown = [line for line in first.splitlines() if line.startswith("run folder: ")]
    assert shown
    assert shown[0] in again


def test_a_complete_run_with_a_damaged_round_is_shown_without_it(tmp_path, capsys):
    run_settings(settings(tmp_path), ScriptedFederation(("0", "1"), 2))
    path = tmp_path / "default" / "run" / "rounds" / "0001" / "round.json"
    path.write_text(path.read_text()[:-9])
    capsys.readouterr()
    with pytest.raises(RecordError, match="nothing was run; .* lacks round 1: .*; overwrite=true runs it again"):
        run_settings(settings(tmp_path), None)
    assert "After round 2 the model is right" in capsys.readouterr().out


def test_a_dry_run_writes_nothing(tmp_path, capsys):
    run_settings(settings(tmp_path, "dry_run=true"), None)
    assert f"would run in {tmp_path / 'default' / 'run'}" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


@pytest.fixture
def heard():
    """What a handler of SIGTERM that was there before the run is called with, such as submitit's."""
    numbers = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: numbers.append(number))
    yield numbers
    signal.signal(signal.SIGTERM, before)


def test_a_signal_stops_a_run_on_ray_which_has_a_handler_of_its_own(tmp_path, monkeypatch, heard):
    @contextmanager
    def ray_cluster(resources):
        signal.signal(signal.SIGTERM, lambda number, frame: None)  # in place of Ray's
        is_up = Future()
        is_up.set_result(None)
        yield is_up

    def federation_on_ray(resources):
        signal.raise_signal(signal.SIGTERM)
        assert heard == []
        return ScriptedFederation(("0", "1"), 2)

    monkeypatch.setattr("tracefl.federation.ray_cluster.ray_cluster", ray_cluster)
    monkeypatch.setattr("tracefl.federation.ray_grid.federation_on_ray", federation_on_ray)
    with pytest.raises(RunStopped, match="stopped by SIGTERM after round 0 of 2"):
        run_settings(settings(tmp_path, "backend=ray"))
    assert heard == [signal.SIGTERM]
