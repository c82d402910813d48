"""A run from its configuration to what it leaves, with clients that do not train."""

import dataclasses
import os
import signal
import time
from collections import Counter
from concurrent.futures import Future
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import count

import pytest

from tests.helpers.configuration import TINY, compose_settings
from tests.helpers.plans import ScriptedFederation
from tests.helpers.runs import TINY_MODEL
from tests.helpers.tables import read_csv, read_untimed
from tracefl.errors import ClusterLostError, RecordError, RoundFailedError, RunStopped
from tracefl.experiment.runner import run_settings
from tracefl.records.checksums import CheckedFiles
from tracefl.records.status import read_run_state


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


def test_a_signal_stops_a_run_on_ray(tmp_path, monkeypatch, heard):
    @contextmanager
    def ray_cluster(resources, is_stopped):
        assert not is_stopped()
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


def pressed(*_, **__):
    """Ctrl-C, in whatever this is put in the place of."""
    raise KeyboardInterrupt


def test_ctrl_c_after_the_last_round_takes_nothing_from_a_complete_run(tmp_path, monkeypatch, caplog, capsys):
    monkeypatch.setattr("tracefl.report.page.write.write_page", pressed)
    run_settings(settings(tmp_path), ScriptedFederation(("0", "1"), 2), show=pressed)
    folder = tmp_path / "default" / "run"
    assert f"report.html was not written (KeyboardInterrupt); to try again: tracefl report {folder}" in caplog.text
    assert f"interrupted after the last round: the run is complete, in {folder}" in capsys.readouterr().out
    assert read_run_state(folder, 2).state == "done"


def test_ctrl_c_while_the_report_of_a_stopped_run_is_written_does_not_hide_what_stopped_it(tmp_path, monkeypatch):
    monkeypatch.setattr("tracefl.report.page.write.write_page", pressed)
    with pytest.raises(RoundFailedError, match="everybody is gone"):
        run_settings(settings(tmp_path), ScriptedFederation(("0", "1"), 1))


def test_a_folder_that_is_removed_under_the_run_is_named(tmp_path):
    folder = tmp_path / "default" / "run"

    class Removes(ScriptedFederation):
        def run(self, plan, hooks):
            def on_round(outcome):
                hooks.on_round(outcome)
                folder.rename(tmp_path / "elsewhere")

            super().run(plan, dataclasses.replace(hooks, on_round=on_round))

    with pytest.raises(
        RecordError, match=f"{folder} was removed while the run wrote there; the same command"
    ) as caught:
        run_settings(settings(tmp_path), Removes(("0", "1"), 2))
    assert caught.value.exit_status == 1
    assert not folder.exists()  # nor made again, as half of one


def test_a_clock_that_jumps_changes_nothing(tmp_path, monkeypatch):
    now, jumps = time.time, count()
    monkeypatch.setattr(time, "time", lambda: now() + (next(jumps) % 3 - 1) * 400 * 86400)
    monkeypatch.setattr("flwr.app.message.message.now", lambda: datetime.fromtimestamp(time.time(), UTC))
    whole, jumping = (tmp_path / name for name in ("whole", "jumping"))
    run_settings(settings(jumping, *TINY_MODEL, "backend=in_process"))
    monkeypatch.undo()
    assert next(jumps) > 9
    run_settings(settings(whole, *TINY_MODEL, "backend=in_process"))
    tables = [read_untimed(folder / "default" / "run" / "rounds.csv") for folder in (whole, jumping)]
    assert tables[0] == tables[1]
    assert len(tables[0]) == 2
    assert read_run_state(jumping / "default" / "run", 2).state == "done"


@pytest.mark.parametrize("asked", [True, False])
def test_a_ray_that_a_signal_ended_while_it_started_was_stopped_and_has_not_failed(tmp_path, monkeypatch, heard, asked):
    @contextmanager
    def ray_cluster(resources, is_stopped):
        lost = Future()
        lost.set_exception(ClusterLostError("Ray did not start"))
        yield lost

    def prepare(*arguments):
        if asked:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("tracefl.federation.ray_cluster.ray_cluster", ray_cluster)
    monkeypatch.setattr("tracefl.experiment.runner._prepare", prepare)
    with pytest.raises(RunStopped if asked else ClusterLostError) as caught:
        run_settings(settings(tmp_path, "backend=ray"))
    assert caught.value.exit_status == (75 if asked else 1)
    assert not list(tmp_path.iterdir())


def test_a_signal_to_all_of_a_job_which_ends_ray_too_has_stopped_the_run(tmp_path, monkeypatch, heard):
    class LosesRay(ScriptedFederation):
        def run(self, plan, hooks):
            signal.raise_signal(signal.SIGTERM)
            raise ClusterLostError("Ray's raylet has ended")

    monkeypatch.setattr("tracefl.federation.in_process.federation_here", lambda: LosesRay(("0", "1"), 2))
    said = "stopped by SIGTERM, which ended Ray as well, after round 0 of 2; the same command with resume=true goes on"
    with pytest.raises(RunStopped, match=said) as caught:
        run_settings(settings(tmp_path, "backend=in_process"))
    assert caught.value.exit_status == 75
    assert read_run_state(tmp_path / "default" / "run", 2).state == "stopped"
