"""The job scripts' command line, called in this process."""

import shlex

import pytest

from tests.conftest import call_main
from tracefl.jobs.__main__ import main

COUNTS = {"training": 36, "dp": 38, "scalability": 10, "dirichlet": 60, "faulty": 18}


@pytest.fixture
def jobs(monkeypatch, capsys):
    """Call ``python -m tracefl.jobs``; returns (status, stdout, stderr)."""
    monkeypatch.delenv("SLURM_ARRAY_TASK_ID", raising=False)
    monkeypatch.delenv("DATA_ROOT", raising=False)

    return lambda *arguments: call_main(monkeypatch, capsys, main, "jobs", *arguments)


def listed(jobs, name, *arguments):
    status, out, err = jobs(name, "--list", *arguments)
    assert (status, err) == (0, "")
    return [shlex.split(line) for line in out.splitlines()]
