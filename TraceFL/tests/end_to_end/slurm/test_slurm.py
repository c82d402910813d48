"""Runs through a real SLURM: the same results as here, each run with its own share."""

import json
import subprocess
import sys

import pytest

from tests.helpers.configuration import REPOSITORY, TINY, compose_settings, once
from tests.helpers.forked import ForkedMain
from tests.helpers.processes import PATIENCE, wait_until
from tests.helpers.runs import TINY_MODEL
from tests.helpers.slurm import Slurm
from tests.helpers.tables import read_untimed
from tracefl.experiment.runner import run_settings

pytestmark = [pytest.mark.slow, pytest.mark.simulation]

# What makes a run of a job script small enough for a test, whatever the experiment.
SMALL = once(
    *(key for key in TINY if "alpha" not in key),
    "num_rounds=1",
    "batch_size=4",
    "dataset.min_examples_per_label=1",
    "model.pretrained=false",
    "dataset=digits",
    *TINY_MODEL,
)

SWEEP = ("seed=1,2", "num_rounds=1")
LONG = 24  # rounds, of which there are some left when SLURM's signal arrives
TINY_JOB = """#!/usr/bin/env bash
#SBATCH --output=logs/%A_%a.out
#SBATCH --cpus-per-task=1
set -euo pipefail
runs=("seed=1" "seed=2")
"{python}" -m tracefl.main "${{runs[$SLURM_ARRAY_TASK_ID]}}" "$@"
"""


def sweep(*overrides, cwd, env=None):
    """Run a sweep; returns its exit status and the lines of its errors."""
    keys = ("--multirun", *once(*TINY, *TINY_MODEL, *overrides))
    done = ForkedMain(*keys, cwd=cwd, output=cwd / "output", errors=cwd / "errors", env=env)
    return done.wait(), (cwd / "errors").read_text().splitlines()


SCRIPTS = sorted(path.name for path in REPOSITORY.glob("job_*_exps.sh"))


def said(output):
    return output.read_text() if output.exists() else "nothing"


def records(folder):
    """Return, by run, all that a launcher must not change."""
    found = {}
    for run in sorted(path for path in folder.iterdir() if (path / "results.json").exists()):
        rows = read_untimed(run / "rounds.csv")
        weights = {p.name: p.read_bytes() for p in run.glob("rounds/**/*.safetensors")}
        assert weights
        found[run.name] = (rows, (run / "provenance.csv").read_text(), weights)
    return found


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """The same runs in this process."""
    folder = tmp_path_factory.mktemp("here")
    for seed in (1, 2):
        keys = (f"seed={seed}", "num_rounds=1", f"log_dir={folder}", "backend=in_process")
        run_settings(compose_settings(*TINY, *TINY_MODEL, *keys))
    found = records(folder / "default")
    assert len(found) == 2
    return found


@pytest.mark.parametrize("launcher", ["joblib", pytest.param("submitit_local", marks=pytest.mark.long)])
def test_launchers_change_no_result(launcher, here, tmp_path):
    status, errors = sweep(*SWEEP, f"launcher={launcher}", cwd=tmp_path)
    assert status == 0, errors
    assert records(tmp_path / "logs" / "default") == here


def test_a_sweep_is_one_job_array_whose_refused_run_is_named(slurm, here, tmp_path):
    overrides = ("seed=1", "clients_per_round=9,3", "num_rounds=1", "launcher=slurm", "hydra.launcher.cpus_per_task=1")
    status, errors = sweep(*overrides, cwd=tmp_path, env=slurm.env)
    assert status == 2
    assert errors == [
        "tracefl: run 1 of 2 (clients_per_round=9): clients_per_round=9 is above num_clients=5; lower it",
        "tracefl: 1 of 2 runs failed",
    ]
    expected = {name: record for name, record in here.items() if "seed1" in name}
    assert records(tmp_path / "logs" / "default") == expected
    logs = sorted(path.name for path in (tmp_path / "logs/default/.submitit").glob("[0-9]*"))
    assert len({name.split("_")[0] for name in logs}) == 1  # one array
    (written,) = (tmp_path / "logs" / "default").glob("*/results.json")
    assert json.loads(written.read_text())["hardware"]["cpus"] == 1  # its share, which nothing binds it to


def test_what_slurm_refuses_is_one_line(slurm, tmp_path):
    status, errors = sweep("launcher=slurm", "hydra.launcher.partition=no_such", cwd=tmp_path, env=slurm.env)
    assert status == 1
    assert errors[-1].startswith("tracefl: the launcher failed")  # before it, sbatch's own
    assert "invalid partition specified: no_such" in errors[-1]


def test_a_time_limit_within_the_warning_is_refused(slurm, tmp_path):
    status, errors = sweep("launcher=slurm", "hydra.launcher.timeout_min=2", cwd=tmp_path, env=slurm.env)
    assert status == 2
    assert "hydra.launcher.timeout_min=2 is within hydra.launcher.signal_delay_s=120 seconds" in errors[-1]


def test_a_job_script_as_an_array(slurm, here, tmp_path):
    (tmp_path / "logs").mkdir()
    script = tmp_path / "job.sh"
    script.write_text(TINY_JOB.format(python=sys.executable))
    job = slurm.submit("--array=0-1%1", script, *once(*TINY, *TINY_MODEL, "num_rounds=1"), cwd=tmp_path)
    assert slurm.wait(job) == {"0": "COMPLETED", "1": "COMPLETED"}
    assert records(tmp_path / "logs" / "default") == here


@pytest.mark.long  # tests/federation/test_ray_cluster.py has a run on a cluster of two nodes
def test_a_run_on_a_ray_that_slurm_started(slurm, here, tmp_path):
    """job_cluster.sh on the one node there is: Ray's head in a step of its own, ended with the run."""
    overrides = once(*TINY, *TINY_MODEL, "num_rounds=1", "seed=1", f"log_dir={tmp_path / 'logs'}")
    output = tmp_path / "job.out"
    arguments = ("--nodes=1", "--cpus-per-task=2", f"--output={output}", "job_cluster.sh", *overrides)
    env = {**slurm.env, "PYTHON": sys.executable}
    job = Slurm(env).submit(*arguments, cwd=REPOSITORY)
    assert slurm.wait(job) == {None: "COMPLETED"}, output.read_text()
    found = records(tmp_path / "logs" / "default")
    assert found == {name: record for name, record in here.items() if "seed1" in name}
    assert "1 nodes, 2 CPUs each" in output.read_text()


@pytest.mark.parametrize("name", SCRIPTS)
def test_slurm_takes_every_job_script(name, slurm):
    slurm.ask("sbatch", "--test-only", "--array=0-1%1", name, cwd=REPOSITORY)


@pytest.mark.parametrize(
    ("name", "tasks", "dry"),
    [
        ("job_training_all_exps.sh", "1", True),
        *(
            pytest.param(name, *rest, marks=pytest.mark.long)
            for name, *rest in (
                ("job_training_all_exps.sh", "0-1%1", False),
                ("job_dp_exps.sh", "37", True),
                ("job_scalability_exps.sh", "9", True),
                ("job_dirichlet_exps.sh", "59", True),
                ("job_faulty_exps.sh", "17", True),
            )
        ),
    ],
)
def test_the_job_scripts_as_arrays(name, tasks, dry, slurm, tmp_path):
    """Submitted from the repository, for SLURM runs a copy of the script; an index picks the run."""
    keys = (*SMALL, f"log_dir={tmp_path}", f"dry_run={str(dry).lower()}")
    job = slurm.submit(f"--array={tasks}", f"--output={tmp_path}/%a.out", name, *keys, cwd=REPOSITORY)
    states = slurm.wait(job)
    outputs = [said(path) for path in tmp_path.glob("*.out")]
    assert set(states.values()) == {"COMPLETED"}, outputs
    assert len(states) == len(list(tmp_path.rglob("results.json"))) + sum("would run in" in text for text in outputs)
    assert dry == any("would run in" in text for text in outputs)


def test_slurms_warning_stops_a_job_script_after_its_round_and_it_goes_on(slurm, tmp_path):
    arguments = ("job_training_all_exps.sh", "3", *once(*SMALL, f"num_rounds={LONG}", f"log_dir={tmp_path}"))

    def submit(name):
        output = tmp_path / name
        return slurm.submit("--no-requeue", f"--output={output}", *arguments, cwd=REPOSITORY), output

    job, output = submit("first.out")
    wait_until(lambda: "round=2 clients sampled" in said(output), lambda: said(output))
    slurm.ask("scancel", "--batch", "--signal=USR2", job)  # as --signal=B:USR2@300 does before the time limit
    assert slurm.wait(job) == {None: "FAILED"}
    assert "ExitCode=75:0" in slurm.ask("scontrol", "-o", "show", "job", job)
    assert "stopped by SIGUSR2 after round" in output.read_text()
    (status,) = tmp_path.rglob("status.json")
    done = json.loads(status.read_text())["rounds_done"]
    assert 2 <= done < LONG
    job, output = submit("second.out")
    assert slurm.wait(job) == {None: "COMPLETED"}, output.read_text()
    assert f"going on after round {done} of {LONG}" in output.read_text()


def test_a_requeued_run_of_a_sweep_goes_on(slurm, tmp_path):
    """SLURM's warning reaches a run of launcher=slurm: it finishes its round, submitit requeues it, and it goes on."""
    command = [sys.executable, "-m", "tracefl.main", *once(*SMALL, f"num_rounds={LONG}"), "launcher=slurm"]
    command += ["hydra.launcher.cpus_per_task=1", "run_name=run"]
    with subprocess.Popen(command, cwd=tmp_path, env=slurm.env, stdout=subprocess.DEVNULL) as sweep:
        log = tmp_path / "logs" / "default" / "run" / "run.log"
        wait_until(lambda: "round=2 clients sampled" in said(log) or sweep.poll() is not None, lambda: said(log))
        (job,) = slurm.ask("squeue", "--noheader", "--states=RUNNING", "--format=%A").split()
        slurm.ask("scancel", "--signal=USR2", job)
        wait_until(lambda: set(slurm.states(job).values()) == {"PENDING"}, lambda: f"{slurm.states(job)} {said(log)}")
        # SLURM waits two minutes before it starts a requeued job again. It needs some of them: the end of the first go,
        # where it is reported after the second has begun, is taken for the second's.
        slurm.ask("scontrol", "update", f"JobId={job}", "StartTime=now+20")
        assert sweep.wait(timeout=PATIENCE) == 0
    assert "stopped by SIGUSR2 after round" in log.read_text()
    assert "going on after round" in log.read_text()
    assert json.loads((log.parent / "results.json").read_text())["rounds"] == LONG
