"""From a composed configuration to checked settings: conflicting values are refused here, before any data loads."""

import torch
from omegaconf import DictConfig

from tracefl.common.environment import cpus_here
from tracefl.common.imports import check_installed
from tracefl.errors import ConfigError
from tracefl.experiment.keys import check_keys
from tracefl.federation.selection import check_selection
from tracefl.learning.datasets import check_source
from tracefl.learning.models import find_model
from tracefl.learning.models.weights import check_exists
from tracefl.learning.privacy.settings import DpSgdSettings
from tracefl.records.settings import Settings, read_composed


def read_settings(cfg: DictConfig) -> Settings:
    """Check a composed configuration and turn it into settings.

    Raises:
        ConfigError: A value is missing or illegal, or two conflict; one line, with the key.
    """
    return check_settings(read_composed(cfg))


def total_cpus(settings: Settings) -> int:
    """Return the CPUs of all clients together."""
    return settings.total_cpus or max(1, cpus_here() // settings.runs_at_once)


def total_gpus(settings: Settings) -> int:
    """Return the GPUs of all clients together."""
    if settings.total_gpus is not None:
        return settings.total_gpus
    return torch.cuda.device_count() if settings.device == "cuda" else 0


def client_gpus(settings: Settings) -> float:
    """Return the GPUs of one client."""
    gpus = settings.client_resources.gpus
    return float(settings.device == "cuda") if gpus is None else float(gpus)


def check_settings(settings: Settings) -> Settings:
    """Return the settings, whose values are each legal by themselves.

    Raises:
        ConfigError: Two conflict with one another, or one with this machine; one line, with the key.
    """
    check_keys(settings)
    _check_libraries(settings)
    _check_device(settings)
    check_selection(settings)
    model = settings.model
    find_model(model.name, model.family)
    if isinstance(model.pretrained, str):
        check_exists(model.pretrained)
    check_source(settings.dataset)
    _check_resources(settings)
    return settings


def _check_libraries(settings: Settings) -> None:
    """Refuse what needs a library of an extra that is not installed, before any data loads."""
    if settings.model.kind == "text":
        check_installed("transformers", f"model={settings.model.name}")
    if isinstance(settings.privacy, DpSgdSettings):
        check_installed("opacus", "privacy=dp_sgd")
    if settings.wandb.mode != "disabled":
        check_installed("wandb", f"wandb.mode={settings.wandb.mode}")


def _check_device(settings: Settings) -> None:
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device=cuda, and torch sees no CUDA device here; use device=cpu")


def _check_resources(settings: Settings) -> None:
    given = settings.client_resources
    if settings.device == "cuda" and given.gpus == 0:
        raise ConfigError("client_resources.gpus=0 with device=cuda leaves clients without a GPU; give e.g. 0.1")
    if settings.ray.address is not None:  # a cluster's resources are known only once it is connected
        for key, value in (("total_cpus", settings.total_cpus), ("total_gpus", settings.total_gpus)):
            if value is not None:
                raise ConfigError(f"{key}={value} and ray.address: the cluster has what it has; leave {key} null")
        return
    cpus_there, gpus_there = cpus_here(), torch.cuda.device_count()
    cpus, gpus = total_cpus(settings), total_gpus(settings)
    if cpus > cpus_there:
        raise ConfigError(f"total_cpus={cpus}, and this machine has {cpus_there}; lower it or leave it null")
    if given.cpus > cpus:
        raise ConfigError(
            f"client_resources.cpus={given.cpus} is above the {cpus} CPUs there are (total_cpus); lower it"
        )
    if gpus > gpus_there:
        raise ConfigError(f"total_gpus={gpus}, and this machine has {gpus_there}; lower it or leave it null")
    if given.gpus is not None and given.gpus > gpus:
        raise ConfigError(
            f"client_resources.gpus={given.gpus} is above the {gpus} GPUs there are (total_gpus, "
            f"device={settings.device}); lower it"
        )
