"""Fixtures for the whole suite: tiny configurations, the real data where it is there."""

import csv
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra

import tracefl.collect
from tracefl.config import read_settings

REPOSITORY = Path(__file__).resolve().parents[2]

# The smallest run that still trains: 3 rounds on a few digits.
TINY = (
    "num_clients=5",
    "clients_per_round=3",
    "num_rounds=2",
    "client.epochs=1",
    "dirichlet_alpha=1.0",
    "dataset.max_examples_per_client=64",
    "dataset.max_server_examples=60",
)


def compose_config(*overrides):
    """Compose the configuration as the command line does."""
    GlobalHydra.instance().clear()
    with initialize_config_module("tracefl.conf", version_base="1.3"):
        return compose("base", list(overrides))


def compose_settings(*overrides):
    return read_settings(compose_config(*overrides))


def call_main(monkeypatch, capture, main, name, *arguments):
    """Call a command in this process; returns (status, stdout, stderr)."""
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    try:
        main()
        status = 0
    except SystemExit as stop:
        status = stop.code
    out, err = capture.readouterr()
    return status, out, err


def ask_main(monkeypatch, capture, main, name, *arguments):
    """Call a command that answers or refuses; returns what is printed, or the error's line."""
    status, out, err = call_main(monkeypatch, capture, main, name, *arguments)
    assert status == (0 if out else 2), err
    return out or err


def read_csv(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def read_untimed(path):
    """Read a CSV without its columns of seconds."""
    return [{key: value for key, value in row.items() if not key.endswith("_seconds")} for row in read_csv(path)]


@pytest.fixture
def collect(monkeypatch, capsys):
    """Call ``tracefl.collect``; returns (status, stdout, stderr)."""
    return lambda *arguments: call_main(monkeypatch, capsys, tracefl.collect.main, "collect", *arguments)


@pytest.fixture
def shared_data():
    """Folder of real data beside the repository."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}")
    return folder


def _stored_run(folder, kind):
    from tests.stored_runs import make_stored_run  # it imports this module

    return make_stored_run(folder, kind)


@pytest.fixture(scope="module")
def image_run(tmp_path_factory):
    """The folder of a run on images whose rounds are stored."""
    return _stored_run(tmp_path_factory.mktemp("run"), "image")


@pytest.fixture(scope="module")
def text_run(tmp_path_factory):
    """The folder of a run on texts whose rounds are stored."""
    return _stored_run(tmp_path_factory.mktemp("run"), "text")
