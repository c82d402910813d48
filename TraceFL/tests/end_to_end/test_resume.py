"""Runs that are killed, signalled or damaged, and gone on with: the numbers of a run that was never stopped."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

from tests.helpers.configuration import TINY, once
from tests.helpers.forked import ForkedMain
from tests.helpers.processes import PATIENCE, wait_until
from tests.helpers.runs import TINY_MODEL, run
from tests.helpers.tables import read_untimed
from tracefl.errors import RunStopped
from tracefl.main import main
from tracefl.questions.verify import verify
from tracefl.records.store import RoundStore

pytestmark = pytest.mark.slow

ROUNDS = 10
KEYS = (*TINY_MODEL, f"num_rounds={ROUNDS}", "total_cpus=1", "resume=true")


def begin(folder, *overrides):
    """Start a run in a process group of its own, all output in one file."""
    folder.mkdir(exist_ok=True)
    (folder / "output").unlink(missing_ok=True)  # what the process before said
    keys = once(*TINY, "run_name=run", *KEYS, f"log_dir={folder}", *overrides)
    return ForkedMain(*keys, cwd=folder, output=folder / "output")


def wait_for(text, process):
    wait_until(lambda: text in process.said() or process.poll() is not None, process.said)
    assert text in process.said()


def finish(folder, *overrides):
    """Let a run end by itself; returns its status and its last line."""
    process = begin(folder, *overrides)
    return process.wait(), process.said().splitlines()[-1]


def numbers(folder):
    """Return all that a run measured but times, and its last weights."""
    run = folder / "default" / "run"
    weights = run / "rounds" / f"{ROUNDS:04d}"
    files = [weights / "global.safetensors", *sorted((weights / "weights").iterdir())]
    return (
        read_untimed(run / "rounds.csv"),
        (run / "provenance.csv").read_text(),
        {file.name: file.read_bytes() for file in files},
    )


@pytest.fixture(scope="module")
def never_stopped(tmp_path_factory):
    """The numbers of the same run in this process."""
    folder = tmp_path_factory.mktemp("reference") / "logs"
    run(folder, *KEYS)
    found = numbers(folder)
    assert len(found[0]) == ROUNDS
    assert len(found[1].splitlines()) > ROUNDS  # predictions are traced
    return found


def kill_and_go_on(folder, kills, never_stopped, *overrides):
    """Kill a run at random moments, start it again each time, and let the last one end."""
    draw = random.Random(0)
    run = folder / "default" / "run"
    while kills:
        process = begin(folder, *overrides)
        wait_for(draw.choice(("disk:", "clients sampled")), process)
        time.sleep(draw.uniform(0, 0.4))  # somewhere in the preparation or in a round or two
        if process.poll() is None:
            # a node that is lost takes Ray with it; a process that is killed leaves it behind
            kill = os.kill if kills % 2 else os.killpg
            kill(process.pid, signal.SIGKILL)
            kills -= 1
        process.wait()
        if (run / "results.json").exists():  # so many kills need another run
            assert numbers(folder) == never_stopped
            shutil.rmtree(run)
    status, last = finish(folder, *overrides)
    assert status == 0, last
    assert numbers(folder) == never_stopped
    assert not (run / ".work").exists()


@pytest.mark.parametrize("kills", [3, pytest.param(10, marks=pytest.mark.long)])
def test_a_run_killed_at_random_moments_ends_the_same(never_stopped, tmp_path, kills):
    kill_and_go_on(tmp_path / "logs", kills, never_stopped, "backend=in_process")


@pytest.mark.simulation
@pytest.mark.parametrize("kills", [1, pytest.param(10, marks=pytest.mark.long)])
def test_a_run_killed_on_ray_ends_the_same(never_stopped, tmp_path, kills):
    kill_and_go_on(tmp_path / "logs", kills, never_stopped, "backend=ray")


@pytest.mark.simulation
@pytest.mark.parametrize(
    ("number", "everyone", "backend"), [(signal.SIGTERM, False, "in_process"), (signal.SIGUSR2, True, "ray")]
)
def test_a_signal_lets_the_round_finish(never_stopped, tmp_path, number, everyone, backend):
    folder = tmp_path / "logs"
    process = begin(folder, f"backend={backend}")
    wait_for("round=2 clients sampled", process)
    (os.killpg if everyone else os.kill)(process.pid, number)  # SLURM may send its warning to all of a job
    assert process.wait() == 75
    last = process.said().splitlines()[-1]
    (done,) = re.fullmatch(
        f"tracefl: stopped by {number.name} after round (\\d+) of {ROUNDS}; the same command with resume=true goes on",
        last,
    ).groups()
    run = folder / "default" / "run"
    assert json.loads((run / "status.json").read_text())["state"] == "stopped"
    assert len(list((run / "rounds").glob("[0-9]*"))) == int(done) >= 2
    assert not {".work", ".claim"} & {path.name for path in run.iterdir()}
    assert f"stopped after {done} of {ROUNDS} rounds" in (run / "report.html").read_text()
    assert finish(folder, "backend=in_process")[0] == 0
    assert f"complete, {ROUNDS} of {ROUNDS} rounds" in (run / "report.html").read_text()
    assert numbers(folder) == never_stopped
    assert f"going on after round {done}" in (run / "run.log").read_text()


@pytest.mark.simulation
@pytest.mark.parametrize("backend", ["in_process", "ray"])
def test_ctrl_c_ends_the_run_at_once_and_is_recorded(never_stopped, tmp_path, backend):
    folder = tmp_path / "logs"
    process = begin(folder, f"backend={backend}")
    wait_for("round=2 clients sampled", process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    assert process.wait() == 130
    last = process.said().splitlines()[-1]
    said = f"tracefl: interrupted after round (\\d+) of {ROUNDS}; the same command with resume=true goes on"
    (done,) = re.fullmatch(said, last).groups()
    run = folder / "default" / "run"
    status = json.loads((run / "status.json").read_text())
    assert (status["state"], status["error"], status["rounds_done"]) == ("stopped", None, int(done))
    assert f"stopped after {done} of {ROUNDS} rounds" in (run / "report.html").read_text()
    assert not {".work", ".claim"} & {path.name for path in run.iterdir()}
    log = (run / "run.log").read_text()
    assert f"stopped: interrupted after round {done} of {ROUNDS}" in log
    assert not re.search("no reply|left out|clients answered", log + process.said())  # no client is to blame
    assert finish(folder, "backend=in_process")[0] == 0
    assert numbers(folder) == never_stopped


def test_ctrl_c_before_a_run_begins_leaves_nothing(tmp_path):
    folder = tmp_path / "logs"
    process = begin(folder, "backend=in_process")
    wait_for("preparing run", process)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait() == 130
    last = process.said().splitlines()[-1]
    if (folder / "default").exists():  # the machine was quick
        assert re.fullmatch("tracefl: interrupted (before the first|after round).*", last)
    else:
        assert last == "tracefl: interrupted while no round was made; the same command begins again"


def stop(folder, *overrides, in_round):
    """Run in this process until a round begins, which is stopped."""
    with pytest.raises(RunStopped):
        run(folder, *KEYS, *overrides, stop_in=in_round)


def test_a_damaged_file_is_named_and_the_round_before_it_used(never_stopped, tmp_path, caplog):
    stop(tmp_path, in_round=6)
    damaged = tmp_path / "default" / "run" / "rounds" / "0005" / "global.safetensors"
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    folder = run(tmp_path, *KEYS)
    assert f"{damaged} is damaged: its checksum" in caplog.text
    assert "going on after round 4 of" in (folder / "run.log").read_text()
    assert numbers(tmp_path) == never_stopped


def test_a_run_that_breaks_off_after_its_last_round_only_has_to_end(never_stopped, tmp_path, monkeypatch):
    def breaks_off(store):
        raise RunStopped("after the last round")

    with monkeypatch.context() as patch:
        patch.setattr(RoundStore, "finish", breaks_off)
        with pytest.raises(RunStopped):
            run(tmp_path, *KEYS)
    folder = tmp_path / "default" / "run"
    (folder / "results.json").unlink(missing_ok=True)  # had it come so far
    (folder / "rounds.csv").write_text("round\n")
    run(tmp_path, *KEYS, stop_in=1)  # in which no client is asked for anything
    assert json.loads((folder / "results.json").read_text())["rounds"] == ROUNDS
    assert numbers(tmp_path) == never_stopped


@pytest.mark.parametrize(
    "overrides",
    [
        (
            "privacy=central_adaptive",
            "privacy.noise_multiplier=0.01",
            "store=none",
            "provenance.every=2",
            "strategy=fedprox",
        ),
        pytest.param(
            ("privacy=dp_sgd", "privacy.noise_multiplier=1.0", "batch_size=16", "dataset.image_size=64"),
            marks=pytest.mark.long,
        ),
        (
            "strategy=provenance_selection",
            "strategy.temperature=0.1",
            "strategy.exploration=0.01",
            "num_clients=8",
            "fault=random_labels",
            "fault.num_clients=3",
            "store=none",
        ),
    ],
)
def test_what_a_run_carries_over_its_rounds_goes_on(tmp_path, overrides):
    """The adaptive norm, the epsilon spent, each client's use; of some rounds neither weights nor a trace is kept."""
    overrides = (*overrides, "num_rounds=4")

    def tables(folder):
        run = folder / "default" / "run"
        weights = {
            str(path.relative_to(run)): path.read_bytes() for path in sorted(run.glob("rounds/**/*.safetensors"))
        }
        return read_untimed(run / "rounds.csv"), (run / "provenance.csv").read_text(), weights

    run(tmp_path / "whole", *KEYS, *overrides)
    stop(tmp_path / "stopped", *overrides, in_round=3)
    run(tmp_path / "stopped", *KEYS, *overrides)
    assert tables(tmp_path / "stopped") == tables(tmp_path / "whole")


def test_a_run_whose_reader_goes_away_runs_on(tmp_path):
    command = [
        sys.executable,
        "-m",
        "tracefl.main",
        *once(*TINY, "run_name=run", *KEYS, f"log_dir={tmp_path}", "num_rounds=2", "backend=in_process"),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        process.stdout.close()  # as `| head -1` does
        assert process.wait(timeout=PATIENCE) == 0
    assert json.loads((tmp_path / "default" / "run" / "results.json").read_text())["rounds"] == 2


def test_a_run_that_the_disk_cannot_hold_is_refused(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["tracefl", *once(*TINY, *KEYS, "store=all", "num_rounds=10000000")])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    last = capfd.readouterr().err.splitlines()[-1]
    assert "of disk and" in last
    assert "keep less: store=last" in last
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_kept_less_at_first_is_whole(tmp_path):
    """As ``tracefl verify`` sees it: weights that were deleted as they were to be are not missing."""
    keys = (*TINY_MODEL, "num_rounds=3", "resume=true")
    with pytest.raises(RunStopped):
        run(tmp_path, *keys, "store=last", stop_in=3)
    found = verify(run(tmp_path, *keys, "store=all"))
    assert found.problems == []
    assert [average.server_round for average in found.averages] == [2, 3]
