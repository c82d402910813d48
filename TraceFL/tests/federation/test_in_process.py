"""Clients called in the server's process: what each answers, and what it leaves behind."""

import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from torch.testing import assert_close

from tests.helpers.configuration import TINY, once
from tests.helpers.plans import Told, make_hooks, make_plan
from tests.helpers.runs import LIGHT_MODEL
from tracefl.errors import RoundFailedError
from tracefl.federation.in_process import federation_here
from tracefl.federation.messages import client_id_of

EVERYONE = {"clients_per_round": 4, "num_rounds": 1}


def answer(message, weights, **metrics):
    """Return a client's reply."""
    metrics = {"num-examples": 1, "train-loss": 1.0, **metrics}
    who = ConfigRecord({"client-id": client_id_of(message)})
    content = {"arrays": ArrayRecord(weights), "metrics": MetricRecord(metrics), "client": who}
    return Message(RecordDict(content), reply_to=message)


def run(train, **changes):
    """Run a plan with clients that do what ``train(client_id, message)`` does; returns what the hooks were told."""
    app, told = ClientApp(), Told()
    app.train()(lambda message, context: train(client_id_of(message), message))
    federation_here(app).run(make_plan(**(EVERYONE | changes)), make_hooks(told))
    return told


def test_clients_are_called_one_after_another_and_averaged():
    called = []

    def train(client_id, message):
        called.append(client_id)
        return answer(message, {"w": torch.full((2,), float(client_id))}, **{"num-examples": int(client_id) + 1})

    told = run(train, num_examples={"0": 1, "1": 2, "2": 3, "3": 4})
    assert called == ["3", "2", "1", "0"]  # the longest job first
    assert told.replies == 4
    (outcome,) = told.outcomes
    # 0 * 0.1 + 1 * 0.2 + 2 * 0.3 + 3 * 0.4
    assert_close(torch.as_tensor(outcome.record.global_weights["w"]), torch.full((2,), 2.0))
    assert outcome.dropped == {}


def test_the_next_round_starts_from_the_average():
    sent = []

    def train(client_id, message):
        weights = message.content.array_records["arrays"].to_torch_state_dict()
        sent.append(weights["w"].tolist())
        return answer(message, {"w": weights["w"] + 1})

    run(train, num_rounds=3, clients_per_round=1)
    assert sent == [[0, 0], [1, 1], [2, 2]]


@pytest.mark.parametrize("error", [ValueError("the disk is full"), SystemExit("the disk is full"), MemoryError()])
def test_a_client_that_raises_is_dropped_and_its_traceback_kept(error, caplog):
    def train(client_id, message):
        if client_id == "1":
            raise error
        return answer(message, {"w": torch.ones(2)})

    told = run(train)
    (outcome,) = told.outcomes
    # as Flower's simulation words it
    assert outcome.dropped == {"1": f"Exception ClientAppException occurred. Message: {error}".strip()}
    assert set(outcome.record.clients) == {"0", "2", "3"}
    assert told.replies == 4
    assert "Traceback" in caplog.text
    assert type(error).__name__ in caplog.text


def test_no_client_left_ends_the_run():
    def train(client_id, message):
        raise OSError("no such device")

    with pytest.raises(RoundFailedError, match=r"0 of 4 clients answered, .* client 3: .*no such device"):
        run(train)


def test_what_interrupts_the_run_is_no_clients_failure():
    def train(client_id, message):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(train)


def test_clients_that_the_time_does_not_suffice_for_are_dropped(monkeypatch):
    now = iter(range(100))
    monkeypatch.setattr("tracefl.federation.grid.time.monotonic", lambda: next(now))
    told = run(lambda client_id, message: answer(message, {"w": torch.ones(2)}), timeout_seconds=5.5)
    (outcome,) = told.outcomes
    assert set(outcome.record.clients) == {"0", "1"}
    reason = "no reply before the time limit (strategy.timeout_seconds)"
    assert outcome.dropped == {"2": reason, "3": reason}


def state():
    return (
        torch.get_num_threads(),
        torch.get_default_dtype(),
        torch.is_grad_enabled(),
        torch.initial_seed(),
        torch.get_rng_state().tolist(),
        random.getstate(),
        np.random.get_state()[1].tolist(),
    )


@pytest.mark.parametrize("fails", [False, True])
def test_the_server_does_not_notice_what_clients_change(fails):
    def train(client_id, message):
        torch.set_num_threads(torch.get_num_threads() + 1)
        torch.set_default_dtype(torch.float64)
        torch.set_grad_enabled(False)
        for seed in (torch.manual_seed, random.seed, np.random.seed):
            seed(int(client_id))
        if fails and client_id == "1":
            raise ValueError
        return answer(message, {"w": torch.ones(2, dtype=torch.float32)})

    before = state()
    run(train)
    assert state() == before


def test_a_run_in_this_process_imports_no_ray(tmp_path):
    code = f"""
import sys
sys.modules["ray"] = None  # any import of it raises
sys.argv = ["tracefl", *{once(*TINY, *LIGHT_MODEL, "num_rounds=1")}, "backend=in_process", "log_dir={tmp_path}"]
from tracefl.main import main
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "backend=in_process: as configured" in done.stdout
