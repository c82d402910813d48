"""Runs that are killed, signalled or damaged, and gone on with: the numbers of a run that was never stopped."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time

import pytest

from tests.helpers.configuration import TINY
from tests.helpers.processes import PATIENCE, wait_until
from tests.helpers.tables import read_untimed
from tracefl.main import main

pytestmark = [pytest.mark.simulation, pytest.mark.slow]

ROUNDS = 10
KEYS = (*TINY, f"num_rounds={ROUNDS}", "run_name=run", "dataset.image_size=16", "total_cpus=1", "resume=true")


def begin(folder, *overrides):
    """Start a run in a process group of its own, all output in one file."""
    command = [sys.executable, "-m", "tracefl.main", *KEYS, f"log_dir={folder}", *overrides]
    folder.mkdir(exist_ok=True)
    with (folder / "output").open("w") as output:
        return subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)


def wait_for(folder, text, process):
    output = folder / "output"
    wait_until(lambda: text in output.read_text() or process.poll() is not None, output.read_text)
    assert text in output.read_text()


def finish(folder, *overrides):
    """Let a run end by itself; returns its status and its last line."""
    process = begin(folder, *overrides)
    status = process.wait(timeout=PATIENCE)
    return status, (folder / "output").read_text().splitlines()[-1]


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
    folder = tmp_path_factory.mktemp("reference") / "logs"
    status, last = finish(folder)
    assert status == 0, last
    assert len(numbers(folder)[0]) == ROUNDS
    return numbers(folder)


def test_a_run_killed_at_ten_random_moments_ends_the_same(never_stopped, tmp_path):
    draw = random.Random(0)
    kills = 0
    while kills < 10:
        process = begin(tmp_path / "logs")
        wait_for(tmp_path / "logs", "disk:", process)
        time.sleep(draw.uniform(0, 5))
        if process.poll() is None:
            # a node that is lost takes Ray with it; a process that is killed leaves it behind
            kill = os.killpg if kills % 2 else os.kill
            kill(process.pid, signal.SIGKILL)
            kills += 1
        process.wait()
        run = tmp_path / "logs" / "default" / "run"
        rounds = len(list((run / "rounds").glob("[0-9]*"))) if run.exists() else 0
        assert kills == 10 or rounds < ROUNDS, "the run is too short for ten kills"
    status, last = finish(tmp_path / "logs")
    assert status == 0, last
    assert numbers(tmp_path / "logs") == never_stopped
    assert not (tmp_path / "logs" / "default" / "run" / ".work").exists()


@pytest.mark.parametrize(("number", "everyone"), [(signal.SIGTERM, False), (signal.SIGUSR2, True)])
def test_a_signal_lets_the_round_finish(never_stopped, tmp_path, number, everyone):
    folder = tmp_path / "logs"
    process = begin(folder)
    wait_for(folder, "round=3 clients sampled", process)
    (os.killpg if everyone else os.kill)(process.pid, number)  # SLURM may send its warning to all of a job
    assert process.wait(timeout=PATIENCE) == 75
    last = (folder / "output").read_text().splitlines()[-1]
    (done,) = re.fullmatch(
        f"tracefl: stopped by {number.name} after round (\\d) of {ROUNDS}; the same command with resume=true goes on",
        last,
    ).groups()
    run = folder / "default" / "run"
    assert json.loads((run / "status.json").read_text())["state"] == "stopped"
    assert len(list((run / "rounds").glob("[0-9]*"))) == int(done) >= 3
    assert not {".work", ".claim"} & {path.name for path in run.iterdir()}
    assert f"stopped after {done} of {ROUNDS} rounds" in (run / "report.html").read_text()
    assert finish(folder)[0] == 0
    assert f"complete, {ROUNDS} of {ROUNDS} rounds" in (run / "report.html").read_text()
    assert numbers(folder) == never_stopped
    assert f"going on after round {done}" in (run / "run.log").read_text()


def test_a_damaged_file_is_named_and_the_round_before_it_used(never_stopped, tmp_path):
    folder = tmp_path / "logs"
    process = begin(folder)
    wait_for(folder, "round=5 clients sampled", process)
    process.terminate()
    process.wait(timeout=PATIENCE)
    damaged = folder / "default" / "run" / "rounds" / "0005" / "global.safetensors"
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    assert finish(folder)[0] == 0
    output = (folder / "output").read_text()
    assert f"{damaged} is damaged: its checksum" in output.replace("\n", " ")
    assert "going on after round 4 of" in output
    assert numbers(folder) == never_stopped


def test_a_run_killed_after_its_last_round_only_has_to_end(never_stopped, tmp_path):
    folder = tmp_path / "logs"
    process = begin(folder)
    run = folder / "default" / "run"
    wait_for(folder, f"round={ROUNDS}/{ROUNDS}", process)
    while not (run / "rounds" / f"{ROUNDS:04d}").exists():
        time.sleep(0.001)
    process.kill()
    process.wait()
    (run / "results.json").unlink(missing_ok=True)  # had it come so far
    (run / "rounds.csv").write_text("round\n")
    assert finish(folder)[0] == 0
    assert json.loads((run / "results.json").read_text())["rounds"] == ROUNDS
    assert numbers(folder) == never_stopped


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
        ("privacy=dp_sgd", "privacy.noise_multiplier=1.0", "batch_size=16"),
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

    assert finish(tmp_path / "whole", *overrides)[0] == 0
    folder = tmp_path / "stopped"
    process = begin(folder, *overrides)
    wait_for(folder, "round=2 clients sampled", process)
    process.terminate()
    assert process.wait(timeout=PATIENCE) == 75
    assert finish(folder, *overrides)[0] == 0
    assert tables(folder) == tables(tmp_path / "whole")


def test_a_run_whose_reader_goes_away_runs_on(tmp_path):
    command = [sys.executable, "-m", "tracefl.main", *KEYS, f"log_dir={tmp_path}", "num_rounds=2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        process.stdout.close()  # as `| head -1` does
        assert process.wait(timeout=PATIENCE) == 0
    assert json.loads((tmp_path / "default" / "run" / "results.json").read_text())["rounds"] == 2


def test_a_run_that_the_disk_cannot_hold_is_refused(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["tracefl", *KEYS, "store=all", "num_rounds=10000000"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    last = capfd.readouterr().err.splitlines()[-1]
    assert "of disk and" in last
    assert "keep less: store=last" in last
    assert list(tmp_path.iterdir()) == []
