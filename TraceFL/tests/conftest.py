"""Fixtures for the whole suite: tiny configurations, the real data where it is there."""

import os
import sys
from collections import Counter
from pathlib import Path

import pytest

import tracefl.collect
import tracefl.jobs.__main__
from tests.helpers.browser import open_browser
from tests.helpers.commands import call_main
from tests.helpers.configuration import REPOSITORY
from tests.helpers.stored_runs import make_stored_run

# What the terminal of whoever runs the suite says of itself would fold tables and colour lines that the tests read.
for _name in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "TTY_COMPATIBLE"):
    os.environ.pop(_name, None)
os.environ["TERM"] = "xterm"

# Of more than half a minute each, the longest first (November 2026).
LONGEST = (
    "end_to_end/slurm/test_slurm.py",
    "documentation/test_commands.py",
    "end_to_end/test_deployment.py",
    "jobs/test_scripts.py",
    "experiment/test_retraining.py",
    "federation/test_ray_cluster.py",
    "end_to_end/test_resume.py",
    "documentation/test_site.py",
    "end_to_end/test_mitigation.py",
    "end_to_end/test_simulation.py",
    "end_to_end/test_backends.py",
    "end_to_end/test_sweep.py",
    "end_to_end/test_flower_run.py",
    "paper/test_runs.py",
)


def pytest_addoption(parser):
    parser.addoption("--all", action="store_true", help="also the tests marked long (make test-all)")


def pytest_collection_modifyitems(config, items):
    """Leave the long tests out unless they are asked for, and put the files first that take longest.

    Else a worker is left with one of these files at the end, and the others wait.
    """
    if not config.option.all and "long" not in config.option.markexpr:
        dropped = [item for item in items if "long" in item.keywords]
        config.hook.pytest_deselected(items=dropped)
        items[:] = [item for item in items if "long" not in item.keywords]
    weight = Counter()
    for item in items:
        weight[item.path] += 10 * ("simulation" in item.keywords) + ("slow" in item.keywords)
    here = Path(__file__).parent
    order = {here / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: (order.get(item.path, len(order)), -weight[item.path]))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    """Write halves of characters out in what a test has printed and logged: a worker's report could not be sent."""
    report = yield
    report.sections = [(name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections]
    return report


@pytest.fixture(autouse=True)
def outside_notebooks(monkeypatch):
    """Let no test take itself for a notebook because another one has run some: a terminal is told by this module."""
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)


@pytest.fixture
def collect(monkeypatch, capsys):
    """Call ``tracefl.collect`` in a wide terminal; returns (status, stdout, stderr)."""
    monkeypatch.setenv("COLUMNS", "200")
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


@pytest.fixture(scope="session")
def image_run(tmp_path_factory):
    """The folder of a run on images whose rounds are stored; tests only read it."""
    return make_stored_run(tmp_path_factory.mktemp("run"), "image")


@pytest.fixture(scope="session")
def text_run(tmp_path_factory):
    """The folder of a run on texts whose rounds are stored; tests only read it."""
    return make_stored_run(tmp_path_factory.mktemp("run"), "text")


@pytest.fixture(scope="session")
def whole_run(tmp_path_factory):
    """The folder that a run of two rounds leaves, with a faulty client and all weights; tests only read it."""
    from tests.helpers.runs import TINY_MODEL, run  # Flower, where it is needed

    of_clients = ("fault=weight_noise", "fault.clients=[1]", "provenance.inputs=mispredicted", "baselines=fast")
    return run(tmp_path_factory.mktemp("whole"), *TINY_MODEL, *of_clients, "store=all")


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """Chromium, started once."""
    with open_browser(tmp_path_factory.mktemp("chromium")) as browser:
        yield browser
