"""From a composed configuration to checked, typed settings; illegal values stop here, before any data loads."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from tracefl.common.environment import cpus_here
from tracefl.errors import ConfigError
from tracefl.experiment.keys import check_values
from tracefl.experiment.mitigation.settings import MitigationSettings, check_mitigation, read_mitigation
from tracefl.federation.participation import check_without, check_without_from
from tracefl.federation.selection import check_selection
from tracefl.learning.datasets import DatasetSettings, PartitionSettings, check_source
from tracefl.learning.faults import FaultSettings, read_fault
from tracefl.learning.models import ModelSettings, find_model
from tracefl.learning.models.weights import check_exists
from tracefl.learning.privacy import PrivacySettings
from tracefl.learning.privacy.settings import read_privacy
from tracefl.learning.training import TrainingSettings
from tracefl.questions.settings import (
    NO_MISPREDICTIONS,
    ProvenanceSettings,
    read_baselines,
    read_provenance,
)
from tracefl.records.naming import run_folder


@dataclass(frozen=True)
class Settings:
    """A whole run, checked. ``provenance`` is None where it is off; ``config`` is the resolved configuration."""

    config: Mapping[str, Any]
    model: ModelSettings
    dataset: DatasetSettings
    partition: PartitionSettings
    training: TrainingSettings
    provenance: ProvenanceSettings | None
    privacy: PrivacySettings
    fault: FaultSettings
    mitigation: MitigationSettings | None
    baselines: tuple[str, ...]
    device: str
    client_gpus: float
    total_cpus: int
    total_gpus: int

    @property
    def folder(self) -> Path:
        """The run's folder, see ``run_folder``."""
        return run_folder(self.config)


def read_settings(cfg: DictConfig) -> Settings:
    """Check a composed configuration and turn it into settings.

    Raises:
        ConfigError: A value is missing or illegal, or two do not go together; one line, with the key.
    """
    missing = sorted(OmegaConf.missing_keys(cfg))
    if missing:
        raise ConfigError(f"{missing[0]} is not set: give {missing[0]}=...")
    config: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    check_values(config)
    model = ModelSettings(**config["model"])
    dataset = DatasetSettings(**config["dataset"])
    partition = dataset.partition_settings(float(config["dirichlet_alpha"]))
    privacy = read_privacy(config["privacy"])
    fault = read_fault(config["fault"])
    baselines = read_baselines(config["baselines"])
    _check_combinations(config, model, dataset, privacy, fault)
    gpus = config["client_resources"]["gpus"]
    on_cuda = config["device"] == "cuda"
    return Settings(
        config=config,
        model=model,
        dataset=dataset,
        partition=partition,
        training=TrainingSettings(batch_size=config["batch_size"], **config["client"]),
        provenance=read_provenance(config["provenance"]),
        privacy=privacy,
        fault=fault,
        mitigation=read_mitigation(config["mitigate"]),
        baselines=baselines,
        device=config["device"],
        client_gpus=float(on_cuda) if gpus is None else float(gpus),
        total_cpus=_total_cpus(config),
        total_gpus=_total_gpus(config),
    )


def _traces_mispredictions(config: Mapping[str, Any]) -> bool:
    group = config["provenance"]
    faulty = config["fault"]["name"] != "none"
    return bool(group["enabled"] and (group["inputs"] or ("mispredicted" if faulty else "correct")) == "mispredicted")


def _check_combinations(
    config: Mapping[str, Any],
    model: ModelSettings,
    dataset: DatasetSettings,
    privacy: PrivacySettings,
    fault: FaultSettings,
) -> None:
    """Refuse values that do not go with one another, or with this machine."""
    if config["overwrite"] and config["resume"]:
        raise ConfigError("overwrite=true begins again and resume=true goes on; give one of them")
    if config["clients_per_round"] > config["num_clients"]:
        raise ConfigError(
            f"clients_per_round={config['clients_per_round']} is above num_clients={config['num_clients']}; lower it"
        )
    if config["strategy"]["min_clients"] > config["clients_per_round"]:
        raise ConfigError(
            f"strategy.min_clients={config['strategy']['min_clients']} is above "
            f"clients_per_round={config['clients_per_round']}; lower it"
        )
    check_without(config)
    check_without_from(config)
    if model.kind != dataset.kind:
        raise ConfigError(
            f"model={model.name} takes {model.kind}s and dataset={dataset.name} holds {dataset.kind}s; "
            f"choose a data set of {model.kind}s or another model"
        )
    if config["device"] == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device=cuda, and torch sees no CUDA device here; use device=cpu")
    if config["client"]["precision"] == "bf16" and config["device"] != "cuda":
        raise ConfigError(f"client.precision=bf16 needs device=cuda, got device={config['device']}")
    if config["provenance"]["precision"] == "bf16" and config["device"] != "cuda":
        raise ConfigError(f"provenance.precision=bf16 needs device=cuda, got device={config['device']}")
    strategy = config["strategy"]
    if strategy["name"] != "fedprox" and strategy["proximal_mu"]:
        raise ConfigError(f"strategy.proximal_mu={strategy['proximal_mu']} needs strategy=fedprox")
    check_selection(strategy, config["provenance"])
    check_mitigation(config)
    privacy.check_round(config["clients_per_round"])
    if privacy.is_dp_sgd and config["client"]["precision"] != "float32":
        raise ConfigError(f"privacy=dp_sgd needs client.precision=float32, got {config['client']['precision']}")
    if config["baselines"]["rules"] and not _traces_mispredictions(config):
        raise ConfigError(f"baselines.rules={config['baselines']['rules']} {NO_MISPREDICTIONS}")
    fault.check_run(config["num_clients"], config["num_rounds"], dataset.kind, dataset.image_size)
    find_model(model.name, model.family)
    if isinstance(model.pretrained, str):
        check_exists(model.pretrained)
    check_source(dataset)
    _check_resources(config)


def _check_resources(config: Mapping[str, Any]) -> None:
    if config["device"] == "cuda" and config["client_resources"]["gpus"] == 0:
        raise ConfigError("client_resources.gpus=0 with device=cuda leaves clients without a GPU; give e.g. 0.1")
    if config["ray"]["address"] is not None:  # what the cluster has is seen when it is there
        for key in ("total_cpus", "total_gpus"):
            if config[key] is not None:
                raise ConfigError(f"{key}={config[key]} and ray.address: the cluster has what it has; leave {key} null")
        return
    here, total_cpus = cpus_here(), _total_cpus(config)
    if total_cpus > here:
        raise ConfigError(f"total_cpus={total_cpus}, and this machine has {here}; lower it or leave it null")
    if config["client_resources"]["cpus"] > total_cpus:
        raise ConfigError(
            f"client_resources.cpus={config['client_resources']['cpus']} is above the {total_cpus} CPUs there are "
            "(total_cpus); lower it"
        )
    gpus_here = torch.cuda.device_count()
    total_gpus = _total_gpus(config)
    if total_gpus > gpus_here:
        raise ConfigError(f"total_gpus={total_gpus}, and this machine has {gpus_here}; lower it or leave it null")
    client_gpus = config["client_resources"]["gpus"]
    if client_gpus is not None and client_gpus > total_gpus:
        raise ConfigError(
            f"client_resources.gpus={client_gpus} is above the {total_gpus} GPUs there are (total_gpus, "
            f"device={config['device']}); lower it"
        )


def _total_cpus(config: Mapping[str, Any]) -> int:
    return int(config["total_cpus"] or max(1, cpus_here() // config["runs_at_once"]))


def _total_gpus(config: Mapping[str, Any]) -> int:
    if config["total_gpus"] is not None:
        return int(config["total_gpus"])
    return torch.cuda.device_count() if config["device"] == "cuda" else 0
