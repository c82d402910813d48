"""Ray: several nodes, several runs on one machine, and what is left of a run that was killed."""

import functools
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

from tests.helpers.configuration import TINY, once
from tests.helpers.forked import ForkedMain
from tests.helpers.processes import PATIENCE, descendants, processes, wait_until
from tests.helpers.recording import app as recording_app
from tests.helpers.runs import TINY_MODEL, run, run_on_ray
from tracefl.errors import ClusterLostError, ConfigError
from tracefl.federation import ray_cluster as ray_cluster_module
from tracefl.federation import ray_grid
from tracefl.federation.ray_cluster import Resources, check_shared, clients_at_once, ray_cluster
from tracefl.federation.ray_grid import federation_on_ray

pytestmark = [pytest.mark.slow, pytest.mark.simulation]

RUN = (*TINY_MODEL, "num_rounds=2", "clients_per_round=4", "store=all")


def files_of(folder):
    """Return all that where a run happens must not change."""
    kept = {"provenance.csv": (folder / "provenance.csv").read_bytes()}
    return kept | {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("weights/*.safetensors")}


def start(*overrides, cwd, name="output"):
    """Start a run in a process of its own, whose output goes to the file of that name."""
    keys = once(*TINY, *TINY_MODEL, "backend=ray", *overrides)
    return ForkedMain(*keys, cwd=cwd, output=cwd / name)


@pytest.fixture(scope="module")
def two_nodes():
    """A Ray cluster of two nodes with a CPU each; returns its address."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        cluster.add_node(num_cpus=1)
        yield cluster.address
    finally:
        ray.shutdown()
        cluster.shutdown()


def test_two_nodes_share_the_work_and_change_no_result(two_nodes, tmp_path, monkeypatch):
    run(tmp_path / "one", *RUN)
    monkeypatch.setattr(ray_grid, "federation_on_ray", functools.partial(federation_on_ray, app=recording_app))
    run_on_ray(tmp_path / "two", *RUN, f"ray.address={two_nodes}")
    worked = {path.name.removeprefix("node-") for path in (tmp_path / "two" / "default").glob("node-*")}
    one, two = (files_of(tmp_path / name / "default" / "run") for name in ("one", "two"))
    assert one == two
    assert len(one) > 8
    ray.init(address=two_nodes)  # the cluster is not ours, and goes on
    assert worked == {node["NodeID"] for node in ray.nodes() if node["Alive"]}
    assert len(worked) == 2
    ray.shutdown()


def test_what_a_cluster_lacks_is_refused(two_nodes, tmp_path):
    with ray_cluster(Resources(1, 0, client_cpus=1, client_gpus=0.0, address=two_nodes)) as up:
        up.result()
        assert clients_at_once(Resources(1, 0, client_cpus=1, client_gpus=0.0)) == 2
        with pytest.raises(ConfigError, match=r"none of the 2 nodes .* has client_resources.cpus=2"):
            clients_at_once(Resources(1, 0, client_cpus=2, client_gpus=0.0))
        with pytest.raises(ConfigError, match=r"none of the 2 nodes .* client_resources.gpus=0.5"):
            clients_at_once(Resources(1, 0, client_cpus=1, client_gpus=0.5))
        seen = tmp_path / "config.yaml"
        seen.write_text("seed: 1\n")
        check_shared(seen)

        class OnlyHere(type(seen)):
            """A file that this node sees and the others do not."""

            def resolve(self, strict=False):
                return Path("/no/such/folder/config.yaml")

        with pytest.raises(ConfigError, match=r"does not see /no/such/folder/config.yaml; set log_dir"):
            check_shared(OnlyHere(seen), seconds=0.1)


def connect(address):
    with ray_cluster(Resources(1, 0, 1, 0.0, address=address)) as up:
        up.result()


def test_an_address_where_there_is_no_ray_is_refused_in_bounded_time(tmp_path, monkeypatch):
    monkeypatch.setattr(ray_cluster_module, "_ANSWER_SECONDS", 5.0)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{server.getsockname()[1]}"
        refused = start(f"ray.address={address}", cwd=tmp_path)
        assert refused.wait() == 2
        assert refused.said().splitlines()[-1].startswith(f"tracefl: ray.address={address} cannot be reached: ")
        server.listen()
        with pytest.raises(ConfigError, match=f"ray.address={address} does not answer as Ray does") as caught:
            connect(address)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "logs").exists()


OTHER_VERSION = """
import sys
import ray
ray.__version__ = "1.0.0"
from ray.scripts.scripts import main
sys.argv = ["ray", "start", "--head", "--block", "--num-cpus=1", "--port", sys.argv[1], "--include-dashboard=false",
            "--ray-client-server-port", sys.argv[2], "--disable-usage-stats"]
main()
"""


def test_another_version_of_ray_is_refused(tmp_path):
    with socket.socket() as free, socket.socket() as also_free:
        ports = []
        for each in (free, also_free):
            each.bind(("127.0.0.1", 0))
            ports.append(each.getsockname()[1])
    port = ports[0]
    head = subprocess.Popen([sys.executable, "-c", OTHER_VERSION, *map(str, ports)], stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: not socket.socket().connect_ex(("127.0.0.1", port)))
        with pytest.raises(ConfigError, match=r"ray.address=.*[Vv]ersion.*1\.0\.0") as caught:
            connect(f"127.0.0.1:{port}")
        assert "\n" not in str(caught.value)
    finally:
        head.terminate()
        head.wait(PATIENCE)


def test_two_runs_started_at_once_do_not_fight(tmp_path):
    keys = ("total_cpus=1", "num_rounds=1", "run_name=run")
    runs = [start(*keys, f"seed={n}", f"exp_key=e{n}", cwd=tmp_path, name=f"output{n}") for n in (1, 2)]
    assert [each.wait() for each in runs] == [0, 0], [each.said() for each in runs]
    for n in (1, 2):
        assert (tmp_path / "logs" / f"e{n}" / "run" / "results.json").exists()


def test_nothing_is_left_of_a_killed_run(tmp_path):
    killed = start("num_rounds=200", cwd=tmp_path)
    wait_until(lambda: "\nround 1 of " in killed.said() or killed.poll() is not None, killed.said)
    family = descendants(killed.pid)
    assert {"raylet", "gcs_server"} <= set(family.values())
    os.kill(killed.pid, signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    wait_until(lambda: not family.keys() & {pid for pid, _, _ in processes()}, lambda: f"{family}: {processes()}")


@pytest.mark.parametrize(
    ("start", "said"),
    [
        (lambda resources, folder: threading.Event().wait(), "no answer from it for 0 s"),  # a process stands still
        (lambda resources, folder: ray.no_such_thing, "module 'ray' has no attribute 'no_such_thing'"),
    ],
)
def test_a_ray_that_does_not_start_is_one_line_and_keeps_nobody_waiting(monkeypatch, start, said):
    monkeypatch.setattr(ray_cluster_module, "_START_SECONDS", 0.1)
    monkeypatch.setattr(ray_cluster_module, "_init", start)
    said = f"^Ray did not start: {said}; try again, or set backend=in_process$"
    with ray_cluster(Resources(1, 0, 1, 0.0)) as up, pytest.raises(ClusterLostError, match=said):
        up.result()


def test_a_run_that_is_asked_to_stop_waits_seconds_for_a_ray_that_the_signal_may_have_ended(monkeypatch):
    monkeypatch.setattr(ray_cluster_module, "_STOPPED_SECONDS", 0.1)
    monkeypatch.setattr(ray_cluster_module, "_init", lambda resources, folder: threading.Event().wait())
    began = time.monotonic()
    with ray_cluster(Resources(1, 0, 1, 0.0), lambda: True) as up, pytest.raises(ClusterLostError, match="for 0 s"):
        up.result()
    assert time.monotonic() - began < ray_cluster_module._START_SECONDS / 2


HEARS = """
import signal
from tracefl.common.signals import StopRequest
from tracefl.federation.ray_cluster import Resources, ray_cluster

with StopRequest() as stop, ray_cluster(Resources(1, 0, 1, 0)) as up:
    up.result()
    signal.raise_signal(signal.SIGTERM)
    print(stop.signal)
"""


def test_ray_leaves_a_run_its_handlers_of_signals(tmp_path):
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", HEARS], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "SIGTERM\n", "")
