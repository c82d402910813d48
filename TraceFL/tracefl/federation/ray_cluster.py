"""Ray for one run: started in the background as early as can be, ended with the run; or a cluster that runs already.

Ray waits for its own processes for seconds, and its workers import torch and Flower for seconds more. All of that
happens while this process does its own imports and prepares the data.
"""

import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from tracefl.common.signals import block_sigusr2
from tracefl.errors import ConfigError, one_line

# For Ray's processes. glibc's allocator: keep the memory of a step's gradients for the next step, rather than hand it
# back to the system and fault it in again page by page; a training step of ResNet-18 is 7 % shorter. And how long Ray's
# agents look for a cluster that was killed with its run before they end too; Ray's default is 60 s.
_RAY_ENVIRONMENT = {
    "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(2**30),
    "RAY_gcs_rpc_server_reconnect_timeout_s": "15",
}

_CONNECT_SECONDS = 10.0
_ANSWER_SECONDS = 60.0
_SEE_SECONDS = 30.0  # longest wait for a file to appear on another node; network file systems show one after seconds


@dataclass(frozen=True)
class Resources:
    """What the simulation may use.

    Attributes:
        total_cpus: CPUs for all clients together; of a cluster given by its address, what the cluster has.
        total_gpus: GPUs for all clients together; likewise.
        client_cpus: CPUs of one client, at least 1; also its number of threads.
        client_gpus: Fraction of a GPU of one client.
        address: HOST:PORT of a Ray cluster that runs already; None for one of the run's own.
    """

    total_cpus: int
    total_gpus: int
    client_cpus: int
    client_gpus: float
    address: str | None = None


@contextmanager
def ray_cluster(resources: Resources) -> Iterator[Future[Any]]:
    """Start Ray, or connect to the cluster there is, in a thread, and end it, or leave it, with the context.

    Without any runtime environment: only then do clients run in the workers that Ray has started already.

    Yields:
        What starting will return or raise; to be waited for before Ray is used.
    """
    with ThreadPoolExecutor(1) as background:
        with block_sigusr2():
            if resources.address is None:
                starting = background.submit(_start, resources)
            else:
                starting = background.submit(_connect, resources.address)
        try:
            yield starting
        finally:
            wait([starting])  # a cluster that is still starting cannot be ended
            ray.shutdown()  # of a cluster that is not ours, this only disconnects


def clients_at_once(resources: Resources) -> int:
    """Return how many clients run at once on the nodes of the cluster that this process is connected to.

    Raises:
        ConfigError: None does.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    at_once = 0
    for node in nodes:
        by_cpu = int(node.get("CPU", 0) / resources.client_cpus)
        at_once += min(by_cpu, int(node.get("GPU", 0) / resources.client_gpus)) if resources.client_gpus else by_cpu
    if at_once == 0:
        raise ConfigError(
            f"none of the {len(nodes)} nodes of the Ray cluster has client_resources.cpus={resources.client_cpus} and "
            f"client_resources.gpus={resources.client_gpus:g}; lower them"
        )
    return at_once


def check_shared(file: Path, seconds: float = _SEE_SECONDS) -> None:
    """Check that every node of the cluster sees a file: clients read their examples from the run's folder.

    Raises:
        ConfigError: A node does not.
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
    """Wait on a node until a file with this text is there; False after ``seconds``."""
    until = time.monotonic() + seconds
    while not (os.path.exists(path) and Path(path).read_text() == text):  # noqa: PTH110
        if time.monotonic() > until:
            return False
        time.sleep(0.2)
    return True


def _start(resources: Resources) -> None:
    for variable, value in _RAY_ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    ray.init(
        address="local",  # a cluster of its own on ports of its own, whatever else runs on this machine
        num_cpus=resources.total_cpus,
        num_gpus=resources.total_gpus,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        _system_config={
            "preload_python_modules": ["tracefl.federation.worker_imports"],
            # Flower ends its workers by a task that Ray counts as failed, would report, and sometimes cannot any more.
            "enable_output_error_log_if_still_retry": False,
        },
    )


def _connect(address: str) -> None:
    """Connect to a cluster within a minute and a half; ``ray.init`` alone tries for more than ten minutes.

    Raises:
        ConfigError: There is none, or it runs other versions.
    """
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
        reason = said[-1] if said else error
        raise ConfigError(f"ray.address={address} does not answer as Ray does: {reason}") from error
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (RuntimeError, ConnectionError) as error:  # above all other versions of Ray or Python
        raise ConfigError(f"ray.address={address}: {one_line(error)}") from error
