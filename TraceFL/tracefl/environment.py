"""What a run ran on: versions and hardware, for results.json."""

import os
import platform
from importlib.metadata import version
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
            **{name: version(name) for name in _LIBRARIES},
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


def cpus_here() -> int:
    """Return how many CPUs this process may use, which can be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
