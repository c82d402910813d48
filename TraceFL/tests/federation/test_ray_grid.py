"""Clients on Ray: who raises, dies, dies again or never answers takes nobody with it, and Ray's end ends the wait."""

import os
import signal
import subprocess
import sys
import time
from collections import deque

import psutil
import pytest
import ray
from flwr.app import ConfigRecord, Message, MessageType, RecordDict
from flwr.clientapp import ClientApp
from ray.exceptions import NodeDiedError, OutOfMemoryError

from tests.helpers.processes import PATIENCE, wait_until
from tracefl.errors import ClusterLostError
from tracefl.federation import ray_grid, ray_processes
from tracefl.federation.messages import client_id_of
from tracefl.federation.nodes import numbered, sends_as_server
from tracefl.federation.ray_cluster import ray_cluster
from tracefl.federation.ray_grid import RayGrid
from tracefl.federation.ray_processes import RayProcesses
from tracefl.federation.resources import Resources

RESOURCES = Resources(1, 0, 1, 0.0)


def app_of(folder):
    """Return clients that do what their id says; each call leaves a file."""
    app = ClientApp()

    @app.train()
    def train(message, context):
        del context
        what = client_id_of(message)
        calls = len(list(folder.glob(f"{what}-*")))
        (folder / f"{what}-{calls}").touch()
        if what == "raises":
            raise ValueError("the disk is full")
        if what == "dies-always" or (what == "dies-once" and not calls):
            os._exit(1)
        if what == "never":
            time.sleep(PATIENCE)
        return Message(RecordDict({"pid": ConfigRecord({"pid": os.getpid()})}), reply_to=message)

    return app


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("calls")


@pytest.fixture(scope="module")
def grid(folder):
    """A grid with one worker."""
    with ray_cluster(RESOURCES) as up:
        up.result()
        sends_as_server()
        yield RayGrid(app_of(folder), RESOURCES, 1)


def ask(grid, *clients):
    """Send a message to each client; returns their ids."""
    contents = [RecordDict({"config": ConfigRecord({"client-id": client})}) for client in clients]
    return grid.push_messages([Message(content, 2, MessageType.TRAIN) for content in contents])


def replies_to(grid, ids):
    """Wait for all replies; returns them in the order of the ids."""
    found = {}

    def all_there():
        found.update({reply.metadata.reply_to_message_id: reply for reply in grid.pull_messages(ids)})
        return len(found) == len(ids)

    wait_until(all_there)
    return [found[message_id] for message_id in ids]


@pytest.mark.slow
@pytest.mark.simulation
def test_every_client_gets_its_own_answer_whatever_the_others_do(grid, folder, caplog):
    raises, once, dies, well = replies_to(grid, ask(grid, "raises", "dies-once", "dies-always", "well"))
    assert raises.error.reason.endswith("the disk is full")
    assert "ValueError: the disk is full" in caplog.text  # its traceback
    assert not once.has_error()  # asked again on another worker
    assert dies.has_error()
    assert "worker" in dies.error.reason
    assert "\n" not in dies.error.reason
    assert not well.has_error()
    calls = {what: len(list(folder.glob(f"{what}-*"))) for what in ("raises", "dies-once", "dies-always", "well")}
    assert calls == {"raises": 1, "dies-once": 2, "dies-always": 2, "well": 1}
    assert "client dies-once is asked again: its worker was lost: " in caplog.text


@pytest.mark.slow
@pytest.mark.simulation
@pytest.mark.parametrize("stopped", [False, True])
def test_a_client_that_never_answers_is_ended_and_its_place_given_to_the_next(grid, folder, stopped):
    calls = len(list(folder.glob("never-*")))
    never = ask(grid, "never")
    wait_until(lambda: len(list(folder.glob("never-*"))) > calls)
    ((_, worker),) = grid._running.values()
    before = {p.pid for p in psutil.Process().children(recursive=True) if "_Worker" in " ".join(p.cmdline())}
    assert len(before) == 1
    if stopped:  # not even a signal other than SIGKILL would end it
        os.kill(*before, signal.SIGSTOP)
    assert list(grid.pull_messages(never)) == []
    grid.give_up(never)
    (well,) = replies_to(grid, ask(grid, "well"))
    assert well.content["pid"]["pid"] not in before
    wait_until(lambda: not any(psutil.pid_exists(pid) for pid in before))
    assert not grid._running
    del worker


@pytest.mark.parametrize("error", [OutOfMemoryError("the node ran low on memory"), NodeDiedError("the node is gone")])
def test_a_worker_that_is_lost_in_whatever_way_is_not_used_again_and_its_client_asked_once_more(error, monkeypatch):
    def lost(ref):
        raise error

    monkeypatch.setattr(ray_grid.ray, "get", lost)
    sends_as_server()
    message = Message(RecordDict({"config": ConfigRecord({"client-id": "3"})}), 2, MessageType.TRAIN)
    numbered(message)
    grid = object.__new__(RayGrid)
    grid._idle, grid._unsent, grid._asked_again = [], deque(), set()
    grid._running = {"first": (message, "a worker")}
    assert grid._take("first") is None
    assert list(grid._unsent) == [message]
    grid._running = {"second": (message, "another")}
    assert str(error) in grid._take("second").error.reason
    assert grid._idle == []


class Started:
    """A process as Ray's node names it."""

    def __init__(self):
        self.process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(900)"])


@pytest.fixture
def processes(monkeypatch):
    """Two processes in the place of Ray's own."""
    started = {"gcs_server": [Started()], "raylet": [Started()]}
    monkeypatch.setattr(ray._private.worker, "_global_node", type("Node", (), {"all_processes": started}))
    monkeypatch.setattr(ray_processes, "_LOOK_SECONDS", 0.0)
    yield {name: infos[0].process for name, infos in started.items()}
    for (info,) in started.values():
        info.process.kill()
        info.process.wait()


def test_a_ray_process_that_ended_ends_the_wait_and_the_others(processes):
    watch = RayProcesses()
    watch.check()
    processes["raylet"].kill()
    processes["raylet"].wait()
    with pytest.raises(ClusterLostError, match="Ray's raylet has ended: the round is lost"):
        watch.check()
    assert processes["gcs_server"].wait(PATIENCE) == -signal.SIGKILL


def test_a_ray_process_that_stands_still_ends_the_wait_after_a_while(processes, monkeypatch):
    watch = RayProcesses()
    stopped = processes["gcs_server"]
    stopped.send_signal(signal.SIGSTOP)
    wait_until(lambda: psutil.Process(stopped.pid).status() == psutil.STATUS_STOPPED)
    watch.check()
    stopped.send_signal(signal.SIGCONT)
    wait_until(lambda: psutil.Process(stopped.pid).status() != psutil.STATUS_STOPPED)
    watch.check()
    stopped.send_signal(signal.SIGSTOP)
    wait_until(lambda: psutil.Process(stopped.pid).status() == psutil.STATUS_STOPPED)
    monkeypatch.setattr(ray_processes, "_STOPPED_SECONDS", 0.0)
    watch.check()
    with pytest.raises(ClusterLostError, match="Ray's gcs_server stands still"):
        watch.check()


def test_without_processes_of_ones_own_there_is_nothing_to_watch(monkeypatch):
    monkeypatch.setattr(ray._private.worker, "_global_node", None)
    RayProcesses().check()
