"""Fixtures of the federation's tests."""

import pytest
from flwr.supercore.task_identity import TaskIdentity


@pytest.fixture
def task(monkeypatch):
    """Messages name the task that makes them; here none runs."""
    for part in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, part, 1)
