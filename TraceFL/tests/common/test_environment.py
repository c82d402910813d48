"""What a run may use of its machine."""

import os

import pytest

from tests.helpers.configuration import compose_settings
from tracefl.common.environment import cpus_here, keep_own_gpus
from tracefl.errors import ConfigError
from tracefl.experiment.settings import total_cpus


@pytest.fixture
def eight_cpus(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    for name in ("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("per_task", "on_node", "cpus"),
    [(None, None, 8), ("3", None, 3), ("3", "2", 2), ("2", "6", 2), ("64", "32", 8), ("", "odd", 8), ("0", None, 1)],
)
def test_cpus_are_those_that_slurm_grants_and_the_machine_has(eight_cpus, monkeypatch, per_task, on_node, cpus):
    for name, value in (("SLURM_CPUS_PER_TASK", per_task), ("SLURM_CPUS_ON_NODE", on_node)):
        if value is not None:
            monkeypatch.setenv(name, value)
    assert cpus_here() == cpus


def test_runs_at_once_share_the_cpus(eight_cpus):
    assert total_cpus(compose_settings()) == 8
    assert total_cpus(compose_settings("runs_at_once=3")) == 2
    assert total_cpus(compose_settings("runs_at_once=20")) == 1
    assert total_cpus(compose_settings("runs_at_once=3", "total_cpus=5")) == 5
    with pytest.raises(ConfigError, match="runs_at_once must be a whole number of at least 1"):
        compose_settings("runs_at_once=0")


@pytest.mark.parametrize(
    ("visible", "runs", "shares"),
    [
        ("0,1,2,3", 2, ["0,2", "1,3"]),
        ("4,7", 2, ["4", "7"]),
        ("0", 2, ["0", "0"]),
        ("0,1,2", 2, ["0,2", "1"]),
        ("0,1", 1, ["0,1"]),
        ("", 2, ["", ""]),
    ],
)
def test_runs_at_once_share_the_gpus(monkeypatch, visible, runs, shares):
    found = []
    for index in range(runs):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        keep_own_gpus(index, runs)
        found.append(os.environ["CUDA_VISIBLE_DEVICES"])
    assert found == shares


def test_a_cluster_has_what_it_has():
    address = "ray.address=10.0.0.1:6379"
    assert compose_settings(address, "client_resources.cpus=64").ray.address == "10.0.0.1:6379"
    with pytest.raises(ConfigError, match="total_cpus=2 and ray.address"):
        compose_settings(address, "total_cpus=2")
    for wrong in ("auto", "host", "host:port", ":6379", "host:99999"):
        with pytest.raises(ConfigError, match=r"ray.address must be HOST:PORT or null"):
            compose_settings(f"ray.address='{wrong}'")
