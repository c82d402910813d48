"""What a run ran on: versions and hardware, for results.json."""

import os
import platform
import resource
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from tracefl import __version__

_LIBRARIES = ("torch", "torchvision", "transformers", "flwr", "ray", "hydra-core", "numpy")


def describe_environment(device: str) -> dict[str, Any]:
    """Return versions and hardware as JSON-ready values."""
    gpu = torch.cuda.get_device_name() if device == "cuda" else None
    return {
        "versions": {
            "tracefl": __version__,
            "python": platform.python_version(),
            **dict(_versions()),
        },
        "hardware": {
            "device": device,
            "gpu": gpu,
            "processor": platform.processor() or platform.machine(),
            "cpus": cpus_here(),
            "torch_threads": torch.get_num_threads(),
            "system": platform.platform(),
        },
    }


def _versions() -> Iterator[tuple[str, str]]:
    """Yield the libraries that are installed with their versions; those of an extra may not be."""
    for name in _LIBRARIES:
        try:
            yield name, version(name)
        except PackageNotFoundError:
            continue


def peak_memory() -> int:
    """Return the most bytes of memory that this process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # kibibytes on Linux


def cpus_here() -> int:
    """Return how many CPUs this process may use, which can be fewer than the machine has.

    Where SLURM does not bind tasks to CPUs, only its variables give a job's share.
    """
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    granted = (os.environ.get(name, "") for name in ("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE"))
    return min(bound, *(max(int(cpus), 1) for cpus in granted if cpus.isdigit()), bound)


def keep_own_gpus(index: int, runs: int) -> None:
    """Leave only one run's GPUs visible where several runs share a machine; call it before torch finds them.

    Args:
        index: Number of the run among all of its sweep, from 0.
        runs: Runs at once. With fewer GPUs than runs, several runs use the same one.
    """
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    visible = [str(gpu) for gpu in range(torch.cuda.device_count())] if listed is None else listed.split(",")
    if runs > 1 and visible and visible != [""]:
        own = visible[index % runs :: runs] or [visible[index % len(visible)]]
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(own)
