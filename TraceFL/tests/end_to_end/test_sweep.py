"""--multirun: all runs, each as if alone, and every failed one named."""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import ray
import torch
from hydra.core.global_hydra import GlobalHydra

from tests.helpers.commands import call_main
from tests.helpers.configuration import TINY, compose_settings, once
from tests.helpers.forked import ForkedMain
from tests.helpers.processes import PATIENCE, descendants, wait_until
from tests.helpers.runs import TINY_MODEL
from tests.helpers.tables import read_csv
from tracefl.experiment.runner import run_settings
from tracefl.main import main
from tracefl.records.claim import CLAIM

SHORT = once(*TINY, *TINY_MODEL, "num_rounds=1", "provenance=off")


@pytest.fixture
def call(monkeypatch, tmp_path, capfd):
    """Call the command line in this process and an empty folder; returns (status, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    GlobalHydra.instance().clear()
    return lambda *arguments: call_main(monkeypatch, capfd, main, "tracefl", *arguments)


def test_a_dry_sweep_says_each_run_and_submits_nothing(call, tmp_path):
    varied = ("model=resnet18,densenet121", "dirichlet_alpha=0.1,0.3")
    status, out, err = call("--multirun", *once(*TINY, "dry_run=true", "launcher=slurm", *varied))
    assert status == 0, err
    assert out.count("would run in logs/default/") == 4
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["model=resnet18,resnet19"], "unknown model 'resnet19'"),
        (["num_client=2,3"], "unknown key 'num_client'"),
        (["launcher=joblib", "runs_at_once=0"], "runs_at_once must be a whole number of at least 1, got 0"),
        (["launcher=slrum"], "unknown launcher 'slrum'"),
    ],
)
def test_a_sweep_that_cannot_be_is_refused_before_any_run(overrides, words, call, tmp_path):
    status, _, err = call("--multirun", *once(*SHORT, *overrides))
    assert status == 2
    assert len(err.splitlines()) == 1, err
    assert words in err
    assert list(tmp_path.rglob("*")) == []


def test_slurm_where_there_is_none_is_refused(call, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    status, _, err = call("launcher=slurm")  # also without --multirun
    assert status == 2
    assert err == ("tracefl: launcher=slurm, and this machine has no sbatch; use another launcher, or a login node\n")


@pytest.mark.slow
def test_a_refused_run_is_named_and_the_others_run(tmp_path):
    files = {"output": tmp_path / "output", "errors": tmp_path / "errors"}
    done = ForkedMain("--multirun", *once(*SHORT, "clients_per_round=9,2"), cwd=tmp_path, **files)
    assert done.wait() == 2
    assert files["errors"].read_text().splitlines() == [
        "tracefl: run 1 of 2 (clients_per_round=9): clients_per_round=9 is above num_clients=5; lower it",
        "tracefl: 1 of 2 runs failed",
    ]
    lines = done.said().splitlines()
    assert lines[0] == "run 1 of 2: clients_per_round=9"
    assert "run 2 of 2: clients_per_round=2" in lines
    table = " ".join(done.said().split())  # its cells may be wrapped
    assert "folder, or what stopped it" in table
    assert "clients_per_round=9 is above num_clients=5; lower it" in table
    assert len(list(tmp_path.glob("logs/default/*/results.json"))) == 1


def wait_for_file(folder, pattern, process):
    """Wait until a process has made a file; returns its path."""
    wait_until(lambda: list(folder.glob(pattern)) or process.poll() is not None)
    (found,) = folder.glob(pattern)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib", pytest.param("submitit_local", marks=pytest.mark.long)])
def test_a_killed_run_is_said_and_not_waited_for(launcher, tmp_path):
    keys = once(*SHORT, "num_rounds=300", f"launcher={launcher}", "seed=1")
    command = [sys.executable, "-m", "tracefl.main", *keys]
    sweeping = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        begun = wait_for_file(tmp_path, "logs/default/*/rounds/0001", sweeping)
        run = json.loads((begun.parents[1] / CLAIM).read_text())["pid"]
        assert run in descendants(sweeping.pid)
        os.kill(run, signal.SIGKILL)
        _, err = sweeping.communicate(timeout=PATIENCE)
    finally:
        sweeping.kill()
    assert sweeping.returncode == 1
    # Not the last line of all: joblib's resource tracker is a process of its own, and may still complain after it.
    own = [line for line in err.splitlines() if line.startswith("tracefl: ")]
    assert own[-1].startswith("tracefl: the launcher failed; the same command runs what is not complete: ")


@pytest.mark.slow
@pytest.mark.parametrize(
    "backend", ["in_process", pytest.param("ray", marks=[pytest.mark.simulation, pytest.mark.long])]
)
def test_a_run_leaves_nothing_behind_in_its_process(tmp_path, backend):
    def run(seed):
        keys = (f"log_dir={tmp_path}", f"seed={seed}", "wandb.mode=offline", f"backend={backend}", "total_cpus=1")
        run_settings(compose_settings(*SHORT, *keys))

    def state():
        for thread in threading.enumerate():
            if thread.name.endswith("(run)"):  # Flower's events, which nobody waits for, end by themselves
                thread.join(PATIENCE)
        return {
            "threads": sorted(t.name for t in threading.enumerate()),
            "handlers": [str(h) for h in logging.getLogger().handlers],
            "level": logging.getLogger().level,
            "variables": dict(os.environ),
            "signals": [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)],
            "torch threads": torch.get_num_threads(),
            # Not those of the browser that other tests have opened, which come and go.
            "children": sorted(name for name in descendants(os.getpid()).values() if "chrom" not in name),
            "folder": Path.cwd(),
        }

    run(1)  # what is imported and set once
    before = state()
    run(2)
    after = state()
    assert not ray.is_initialized()
    assert after == before
    tables = [read_csv(path) for path in tmp_path.glob("default/*/rounds.csv")]
    assert [len(table) for table in tables] == [1, 1]
