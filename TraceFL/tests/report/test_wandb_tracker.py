"""W&B: what it is given can be read back, and nothing that it does stops or delays a run."""

import json
import logging
import sys
import threading
import time
import types

import pytest

from tests.helpers.configuration import TINY, compose_settings
from tests.helpers.wandb_reader import read_datastore
from tracefl.provenance import TracedInput
from tracefl.records.result import RoundResult
from tracefl.report.wandb_tracker import WandbTracker

pytestmark = pytest.mark.slow


def traced_input(index):
    return TracedInput(
        input_index=index,
        label=1,
        predicted=1,
        traced_client="3",
        expected_clients=("3", "4"),
        localized=True,
        score=0.75,
        ranking=(("3", 0.75), ("4", 0.25)),
        chance=0.5,
        top_holder=True,
        counterfactual_client="3",
        counterfactual_correlation=1.0,
        contributions=(("3", 0.4), ("4", -0.7)),
    )


SUSPECTS = (
    {"rule": "provenance", "localization_accuracy": 0.75},
    {"rule": "feddebug", "localization_accuracy": None},  # does not apply
)


def round_result(n):
    row = {"round": n, "global_accuracy": n / 10, "localization_accuracy": 1.0, "train_loss": None}
    return RoundResult(row, (traced_input(n), traced_input(n + 100)), SUSPECTS, {"3": 0.5, "4": 0.5}, {})


@pytest.fixture
def follow(tmp_path):
    """Follow some rounds of a run; returns the seconds that it took, and those that rounds took."""

    def call(rounds, mode="offline", close_seconds=60.0):
        settings = compose_settings(*TINY, f"wandb.mode={mode}", "exp_key=mine")
        began = time.monotonic()
        tracker = WandbTracker(settings, tmp_path, close_seconds)
        for n in rounds:
            tracker.round_finished(round_result(n))
        in_rounds = time.monotonic() - began
        tracker.close()
        return time.monotonic() - began, in_rounds

    return call


def test_offline_what_was_given_is_read_back(follow, tmp_path):
    follow([1, 2])
    (path,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    records = list(read_datastore(path))
    (run,) = (record.run for record in records if record.HasField("run"))
    assert (run.project, run.run_group, run.display_name) == ("tracefl", "mine", tmp_path.name)
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert config["num_clients"] == 5
    steps = [record.history for record in records if record.HasField("history")]
    values = [{(i.key or "/".join(i.nested_key)): json.loads(i.value_json) for i in step.item} for step in steps]
    assert [value["_step"] for value in values] == [1, 2]
    assert [value["global_accuracy"] for value in values] == [0.1, 0.2]
    assert all("train_loss" not in value for value in values)
    assert [value["suspects/provenance"] for value in values] == [0.75, 0.75]
    assert all("suspects/feddebug" not in value for value in values)
    for n, value in enumerate(values, 1):
        held = json.loads((path.parent / "files" / value["traced_inputs/path"]).read_text())
        assert [dict(zip(held["columns"], row, strict=True))["input_index"] for row in held["data"]] == [n, n + 100]


def test_a_resumed_run_goes_on_under_its_id(follow, tmp_path):
    follow([1])
    follow([2])
    ids = set()
    paths = list(tmp_path.glob("wandb/offline-run-*/run-*.wandb"))
    for path in paths:
        ids |= {record.run.run_id for record in read_datastore(path) if record.HasField("run")}
    assert len(ids) == 1
    assert len(paths) == 2


def test_a_folder_that_cannot_be_read_costs_the_figures_alone(follow, tmp_path, caplog):
    (tmp_path / "rounds" / "0001").mkdir(parents=True)
    (tmp_path / "rounds" / "0001" / "round.json").write_text("{")
    with caplog.at_level(logging.WARNING):
        follow([1, 2])
    (record,) = caplog.records
    assert "W&B got no figures of the whole run" in record.getMessage()
    (path,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    assert sum(record.HasField("history") for record in read_datastore(path)) == 2
    assert any(record.HasField("exit") for record in read_datastore(path))


class StubRun:
    """A W&B run that misbehaves in one of its calls."""

    def __init__(self, log=None, finish=None):
        self.log = log or (lambda *args, **kwargs: None)
        self.finish = finish or (lambda: None)


def stub_wandb(monkeypatch, init):
    module = types.ModuleType("wandb")
    module.init = init
    module.Settings = dict
    module.Table = dict
    module.teardown = lambda: None
    monkeypatch.setitem(sys.modules, "wandb", module)


def broken(*args, **kwargs):
    raise LookupError("the server\nsaid no")


@pytest.mark.parametrize("init", [broken, lambda **_: StubRun(log=broken)], ids=["at its start", "in a round"])
def test_a_wandb_that_raises_is_said_once(init, follow, monkeypatch, caplog):
    stub_wandb(monkeypatch, init)
    with caplog.at_level(logging.WARNING):
        follow([1, 2, 3])
    first, second = (record.getMessage() for record in caplog.records)
    assert "W&B failed (LookupError: the server said no); the run goes on" in first
    assert "wandb sync" in first
    assert second == "W&B holds 0 of 3 rounds; rounds.csv and provenance.csv hold all"


def test_a_wandb_that_fails_at_its_end_loses_no_round(follow, monkeypatch, caplog):
    stub_wandb(monkeypatch, lambda **_: StubRun(finish=broken))
    with caplog.at_level(logging.WARNING):
        follow([1])
    assert len(caplog.records) == 1


@pytest.mark.parametrize("where", ["init", "log", "finish"])
def test_a_wandb_that_hangs_holds_up_no_round_and_the_end_for_a_bounded_time(where, follow, monkeypatch, caplog):
    released = threading.Event()

    def hang(*args, **kwargs):
        released.wait(300)

    init = hang if where == "init" else lambda **_: StubRun(**{where: hang})
    stub_wandb(monkeypatch, init)
    with caplog.at_level(logging.WARNING):
        seconds, in_rounds = follow(range(1, 201), close_seconds=1.0)  # more rounds than are kept for it
    released.set()
    assert in_rounds < 60
    assert seconds < 120
    assert "it did not end within 1s" in caplog.text
    if where != "finish":
        assert "W&B holds 0 of 200 rounds" in caplog.text


@pytest.mark.parametrize("silent", [True, False], ids=["that never answers", "that is not there"])
def test_a_server(silent, follow, monkeypatch, tmp_path, caplog):
    """The real wandb, online, against an address where there is no W&B."""
    import socket

    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if silent:
            server.listen()
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        monkeypatch.setattr("tracefl.report.wandb_tracker._INIT_SECONDS", 4.0)
        with caplog.at_level(logging.WARNING):
            seconds, in_rounds = follow([1], mode="online", close_seconds=15.0)
    assert in_rounds < 15
    assert seconds < 120
    assert "W&B failed" in caplog.text
