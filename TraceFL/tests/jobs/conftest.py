"""The job scripts' command line, called in this process."""

import shlex
import sys

import pytest

from tracefl.jobs.__main__ import main

COUNTS = {"training": 36, "dp": 38, "scalability": 10, "dirichlet": 60}


@pytest.fixture
def jobs(monkeypatch, capsys):
    """Call ``python -m tracefl.jobs``; returns (status, stdout, stderr)."""
    monkeypatch.delenv("SLURM_ARRAY_TASK_ID", raising=False)
    monkeypatch.delenv("DATA_ROOT", raising=False)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["jobs", *arguments])
        try:
            main()
            status = 0
        except SystemExit as stop:
            status = stop.code
        out, err = capsys.readouterr()
        return status, out, err

    return call


def listed(jobs, name, *arguments):
    status, out, err = jobs(name, "--list", *arguments)
    assert (status, err) == (0, "")
    return [shlex.split(line) for line in out.splitlines()]
