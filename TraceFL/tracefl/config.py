"""From a composed configuration to checked, typed settings; illegal values stop here, before any data loads."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from omegaconf import DictConfig, OmegaConf

from tracefl.baselines import RULES
from tracefl.config_rules import check_group, check_values
from tracefl.datasets import DatasetSettings, PartitionSettings, check_source
from tracefl.environment import cpus_here
from tracefl.errors import ConfigError
from tracefl.faults import FaultSettings, fault_words, read_fault
from tracefl.mitigation.settings import MitigationSettings, check_mitigation, read_mitigation
from tracefl.models import ModelSettings, find_model
from tracefl.models.weights import check_exists
from tracefl.participation import check_without, check_without_from
from tracefl.privacy import PrivacySettings
from tracefl.privacy.settings import read_privacy
from tracefl.provenance import Method
from tracefl.provenance.engine import Precision
from tracefl.provenance.layers import OPTIONS
from tracefl.selection import check_selection
from tracefl.training import TrainingSettings

# Keys that say where and how a run happens, and so change none of its numbers.
CIRCUMSTANCES = (
    "exp_key",
    "run_name",
    "log_dir",
    "overwrite",
    "resume",
    "dry_run",
    "total_cpus",
    "total_gpus",
    "runs_at_once",
    "ray",
    "store",
    "wandb",
)


_VERIFIED = 3  # first clients of an input that are checked where nothing else is asked for; README, "What to use when"

NO_MISPREDICTIONS = (
    "look at mispredictions, and none are traced by themselves: that takes provenance other than off, and a fault such "
    "as fault=label_flip or provenance.inputs=mispredicted"
)


@dataclass(frozen=True)
class ProvenanceSettings:
    """How and when a round is traced.

    Attributes:
        method: What is computed.
        inputs: ``"correct"`` predictions, ``"mispredicted"`` ones or ``"all"``, both as the server can tell them apart
            without knowing of a fault; None for mispredicted ones in a run with faulty clients, else correct ones.
        inputs_per_label: Correctly predicted server inputs of each held label, at least 1.
        max_inputs: Mispredicted server inputs, at least 1.
        every: Rounds between two traced rounds, at least 1.
        counterfactual: Check the answers against each client's exact removal.
        batch_size: Inputs in one forward, at least 1.
        memory_budget: Bytes that an attribution may hold beyond the model, at least 1.
        precision: Of the products' factors.
    """

    method: Method
    inputs: Literal["correct", "mispredicted", "all"] | None
    inputs_per_label: int
    max_inputs: int
    every: int
    counterfactual: bool
    batch_size: int
    memory_budget: int
    precision: Precision


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


def run_folder(config: Mapping[str, Any]) -> Path:
    """Return the folder of a run, ``log_dir/exp_key/run_name``; the values need not be legal on this machine.

    Args:
        config: The resolved configuration. Its ``run_name``, where null, is what the run is, and its fingerprint.
    """
    c = config
    name = c["run_name"]
    if not name:
        model, dataset = Path(c["model"]["name"]).name, Path(c["dataset"]["name"]).name
        spread = (
            f"alpha{c['dirichlet_alpha']}" if c["dataset"]["partition"] == "dirichlet" else c["dataset"]["partition"]
        )
        fault = fault_words(c.get("fault", {"name": "none"}))  # configurations written before the key existed
        spread += f"-{fault}" if fault else ""
        setting = f"{c['clients_per_round']}of{c['num_clients']}-{c['num_rounds']}r-seed{c['seed']}"
        name = f"{model}-{dataset}-{spread}-{setting}-{fingerprint(c)}"
    return Path(c["log_dir"]).expanduser() / str(c["exp_key"]) / str(name)


def fingerprint(config: Mapping[str, Any]) -> str:
    """Return eight hexadecimal digits that differ whenever two configurations can give different numbers."""
    kept = {key: value for key, value in config.items() if key not in CIRCUMSTANCES}
    kept["client_resources"] = config["client_resources"]["cpus"]  # a client's threads: they change the rounding
    return hashlib.sha256(json.dumps(_text_keys(kept), sort_keys=True).encode()).hexdigest()[:8]


def _text_keys(node: Any) -> Any:
    """Return a configuration with all keys as text, as JSON has them: numbers and text cannot be sorted together."""
    if isinstance(node, Mapping):
        return {str(key): _text_keys(value) for key, value in node.items()}
    return node


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


def read_provenance(group: Mapping[str, Any]) -> ProvenanceSettings | None:
    """Turn the group ``provenance`` into settings, None where it is off.

    Raises:
        ConfigError: A value is illegal.
    """
    check_group("provenance", group)
    layers = group["layers"]
    if layers is not None and not (isinstance(layers, list) and layers and all(isinstance(n, str) for n in layers)):
        raise ConfigError(f"provenance.layers must be a list of layer names such as [fc], or null, got {layers!r}")
    also = group.get("also", [])  # folders written before the key existed traced nothing more
    if not isinstance(also, list) or not set(map(str, also)) <= set(OPTIONS):
        raise ConfigError(f"provenance.also must be a list of {', '.join(OPTIONS)}, or [], got {also!r}")
    if not group["enabled"]:
        return None
    estimate = Method(
        layer_decay=float(group["layer_decay"]),
        weighting=group["weighting"],
        reference=group["reference"],
        target=group["target"],
        layers=None if layers is None else tuple(layers),
        also=tuple(also),
    )
    verify = group.get("verify", 0)  # likewise
    if verify is None:
        verify = _VERIFIED if estimate.estimates_removal else 0
    try:
        method = replace(estimate, verify=verify)
    except ValueError as error:
        raise ConfigError(f"provenance.{error}") from error
    return ProvenanceSettings(
        method=method,
        inputs=group.get("inputs"),  # folders written before the key existed traced correct ones
        inputs_per_label=group["inputs_per_label"],
        max_inputs=group.get("max_inputs", 50),
        every=group["every"],
        counterfactual=group["counterfactual"],
        batch_size=group["batch_size"],
        memory_budget=int(group["memory_budget"] * 2**30),
        precision=group["precision"],
    )


def read_baselines(group: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the rules in the group ``baselines``.

    Raises:
        ConfigError: A rule is unknown, or named twice.
    """
    rules = group["rules"]
    if not isinstance(rules, list) or not set(map(str, rules)) <= set(RULES) or len(set(rules)) < len(rules):
        raise ConfigError(f"baselines.rules must be a list of {', '.join(RULES)}, or [], got {rules!r}")
    return tuple(rules)


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
