"""Ray for one run: a cluster started in the background and ended with the run, or one that is already running.

Ray needs seconds to start its processes, and its workers seconds more to import torch and Flower. Meanwhile this
process does its own imports and prepares the data.
"""

import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray._private import ray_constants
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from tracefl.common.signals import block_sigusr2
from tracefl.common.words import repeated
from tracefl.errors import ClusterLostError, ConfigError, one_line
from tracefl.federation.ray_fence import check_token, fenced, token_hint
from tracefl.federation.ray_processes import RayProcesses
from tracefl.federation.resources import Resources

log = logging.getLogger(__name__)

# For Ray's processes. The first two make glibc's allocator keep the memory of a step's gradients for the next step,
# instead of returning it and faulting it in again page by page: a training step of ResNet-18 takes 7 % less time. The
# third is how long Ray's agents outlive a cluster that was killed with its run; Ray's default is 60 s.
_RAY_ENVIRONMENT = {
    "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(2**30),
    "RAY_gcs_rpc_server_reconnect_timeout_s": "15",
}

_NOT_STARTED, _REMEDY = "Ray did not start", "try again, or set backend=in_process"
_START_SECONDS = 180.0  # or to connect
_STOPPED_SECONDS = 2.0  # the same, from when the run is asked to stop: the signal may have been Ray's, too
_CONNECT_SECONDS = 10.0
_END_SECONDS, _END_UNSTARTED_SECONDS = 30.0, 5.0
_WATCH_SECONDS = 0.2
_ANSWER_SECONDS = 60.0
_LONGEST_REASON = 200  # characters
_SEE_SECONDS = 30.0  # longest wait for a file to appear on another node, which takes seconds on network file systems


@contextmanager
def ray_cluster(resources: Resources, is_stopped: Callable[[], bool] = lambda: False) -> Iterator[Future[Any]]:
    """Start Ray or connect to a cluster, in a thread; on exit, stop Ray or disconnect from the cluster.

    Both end within minutes, whatever happens to Ray's processes.

    A Ray that is started is of use to this process alone, see ray_fence.py. It is given no runtime environment, because
    otherwise clients would not run in the workers already started.

    Args:
        resources: CPUs and GPUs, and the cluster's address where it is not to be started.
        is_stopped: Whether the run was asked to stop: then Ray's start is waited for no longer than seconds.

    Yields:
        A future that is done, or raises, when Ray can be used.
    """
    ray_constants.RAY_DISABLE_FAILURE_SIGNAL_HANDLER = True  # Ray's aborts this process at SIGTERM; the run has its own
    with ExitStack() as stack:
        is_over = threading.Event()
        with block_sigusr2():
            if resources.address is None:
                start = partial(_start, resources, stack.enter_context(fenced()))
            else:
                start = partial(_connect, resources.address)
            starting = _in_background(start, is_over, is_stopped)
        stack.callback(is_over.set)
        try:
            yield starting
        finally:
            wait([starting])  # Ray cannot be stopped while it starts
            _end(_END_SECONDS if starting.exception() is None else _END_UNSTARTED_SECONDS)


def _in_background(start: Callable[[], None], is_over: threading.Event, is_stopped: Callable[[], bool]) -> Future[Any]:
    """Call a function in a thread that keeps nobody waiting: Ray's calls wait for ever for a process that stands still.

    Linux ends Ray's processes with the thread that started them, so the thread stays until ``is_over`` is set.
    """
    starting: Future[Any] = Future()
    once = threading.Lock()

    def end(error: BaseException | None) -> None:
        with once:
            if not starting.done():
                starting.set_result(None) if error is None else starting.set_exception(error)

    def call() -> None:
        try:
            start()
        except BaseException as error:  # noqa: BLE001 - it is the future's
            end(error)
        else:
            end(None)
        is_over.wait()

    def watch() -> None:
        began, limit = time.monotonic(), _START_SECONDS
        while time.monotonic() - began < limit:
            if wait([starting], _WATCH_SECONDS).done:
                return
            if is_stopped():
                limit = min(limit, time.monotonic() - began + _STOPPED_SECONDS)
        end(ClusterLostError(f"{_NOT_STARTED}: no answer from it for {limit:.0f} s; {_REMEDY}"))

    for target in (watch, call):
        threading.Thread(target=target, daemon=True).start()
    return starting


def _end(seconds: float) -> None:
    """Stop Ray, or disconnect from a cluster that is not ours; nothing of it can keep this process waiting."""
    processes = RayProcesses()
    ending = threading.Thread(target=ray.shutdown, daemon=True)
    ending.start()
    ending.join(seconds)
    if ending.is_alive():
        log.warning("Ray has not ended after %.0f s: its processes are killed", seconds)
        processes.kill()
        ending.join(seconds)


def clients_at_once(resources: Resources) -> int:
    """Return how many clients the connected cluster runs at once.

    Raises:
        ConfigError: No node has enough CPUs and GPUs for one client.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    at_once = sum(resources.clients_in(node.get("CPU", 0), node.get("GPU", 0)) for node in nodes)
    if at_once == 0:
        raise ConfigError(
            f"none of the {len(nodes)} nodes of the Ray cluster has client_resources.cpus={resources.client_cpus} and "
            f"client_resources.gpus={resources.client_gpus:g}; lower them"
        )
    return at_once


def check_shared(file: Path, seconds: float = _SEE_SECONDS) -> None:
    """Check that every node of the cluster sees a file of the run's folder, where clients read their examples.

    Raises:
        ConfigError: A node does not see it.
    """
    path, text = str(file.resolve()), file.read_text()
    looking = {
        node["NodeManagerAddress"]: _sees.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote(path, text, seconds)
        for node in ray.nodes()
        if node["Alive"]
    }
    blind = [address for address, answer in looking.items() if not ray.get(answer)]
    if blind:
        raise ConfigError(
            f"the node {blind[0]} of the Ray cluster does not see {path}; set log_dir to a folder that all nodes share"
        )


@ray.remote(num_cpus=0)
def _sees(path: str, text: str, seconds: float) -> bool:
    """Wait on a node for a file with this text; False if it is not there after ``seconds``."""
    until = time.monotonic() + seconds
    while not (os.path.exists(path) and Path(path).read_text() == text):  # noqa: PTH110
        if time.monotonic() > until:
            return False
        time.sleep(0.2)
    return True


def _start(resources: Resources, folder: Path) -> None:
    """Start Ray.

    Raises:
        ClusterLostError: It has not started.
    """
    for variable, value in _RAY_ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    try:
        _init(resources, folder)
    except Exception as error:  # Ray raises Exception itself
        raise ClusterLostError(f"{_NOT_STARTED}: {repeated(one_line(error), _LONGEST_REASON)}; {_REMEDY}") from error


def _init(resources: Resources, folder: Path) -> None:
    ray.init(
        address="local",  # a new cluster with its own ports, whatever else runs on this machine
        num_cpus=resources.total_cpus,
        num_gpus=resources.total_gpus,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        _temp_dir=str(folder),
        _system_config={"preload_python_modules": ["tracefl.federation.worker_imports"]},
    )


def _connect(address: str) -> None:
    """Connect to a cluster within 90 s; ``ray.init`` alone would try for more than ten minutes.

    Raises:
        ConfigError: There is no cluster, or it runs other versions of Ray or Python.
    """
    check_token(address)
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), _CONNECT_SECONDS).close()
    except OSError as error:
        raise ConfigError(f"ray.address={address} cannot be reached: {error}; start Ray there") from error
    asking = [sys.executable, "-m", "ray.scripts.scripts", "status", "--address", address]
    try:
        subprocess.run(asking, check=True, capture_output=True, timeout=_ANSWER_SECONDS)
    except (subprocess.TimeoutExpired, subprocess.CalledProcessError) as error:
        said = (error.stderr or b"").decode(errors="replace").strip().splitlines()
        reason = repeated(said[-1], _LONGEST_REASON) if said else error
        raise ConfigError(f"ray.address={address} does not answer as Ray does: {reason}{token_hint(said)}") from error
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (RuntimeError, ConnectionError) as error:  # mostly another version of Ray or Python
        raise ConfigError(f"ray.address={address}: {one_line(error)}") from error
