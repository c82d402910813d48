"""The job scripts' command line, called in this process."""

import pytest

from tests.helpers.commands import call_main
from tracefl.jobs.__main__ import main


@pytest.fixture
def jobs(monkeypatch, capsys):
    """Call ``python -m tracefl.jobs``; returns (status, stdout, stderr)."""
    monkeypatch.delenv("SLURM_ARRAY_TASK_ID", raising=False)
    monkeypatch.delenv("DATA_ROOT", raising=False)

    return lambda *arguments: call_main(monkeypatch, capsys, main, "jobs", *arguments)
