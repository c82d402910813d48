"""Fixtures for the whole suite: tiny configurations, the real data where it is there."""

import pytest

import tracefl.collect
import tracefl.jobs.__main__
from tests.helpers.commands import call_main
from tests.helpers.configuration import REPOSITORY


@pytest.fixture
def collect(monkeypatch, capsys):
    """Call ``tracefl.collect``; returns (status, stdout, stderr)."""
    return lambda *arguments: call_main(monkeypatch, capsys, tracefl.collect.main, "collect", *arguments)


@pytest.fixture
def jobs(monkeypatch, capsys):
    """Call ``tracefl.jobs``; returns (status, stdout, stderr)."""
    monkeypatch.delenv("SLURM_ARRAY_TASK_ID", raising=False)
    monkeypatch.delenv("DATA_ROOT", raising=False)
    return lambda *arguments: call_main(monkeypatch, capsys, tracefl.jobs.__main__.main, "jobs", *arguments)


@pytest.fixture
def shared_data():
    """Folder of real data beside the repository."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}")
    return folder


def _stored_run(folder, kind):
    from tests.helpers.stored_runs import make_stored_run  # it imports this module

    return make_stored_run(folder, kind)


@pytest.fixture(scope="module")
def image_run(tmp_path_factory):
    """The folder of a run on images whose rounds are stored."""
    return _stored_run(tmp_path_factory.mktemp("run"), "image")


@pytest.fixture(scope="module")
def text_run(tmp_path_factory):
    """The folder of a run on texts whose rounds are stored."""
    return _stored_run(tmp_path_factory.mktemp("run"), "text")
