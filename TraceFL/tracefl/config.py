"""From a composed configuration to checked, typed settings; illegal values stop here, before any data loads."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from tracefl.cli import choices
from tracefl.datasets import DatasetSettings, PartitionSettings, check_source
from tracefl.environment import cpus_here
from tracefl.errors import ConfigError
from tracefl.models import ModelSettings, find_model
from tracefl.models.weights import check_exists
from tracefl.privacy import PRIVACY_TRACES, PrivacySettings
from tracefl.privacy.settings import read_privacy
from tracefl.provenance import Method
from tracefl.provenance.engine import Precision
from tracefl.provenance.layers import OPTIONS
from tracefl.provenance.method import METHOD_TARGETS, REFERENCES, WEIGHTINGS
from tracefl.rounds import DTYPES, KEEPS, KINDS
from tracefl.training import OPTIMIZERS, PRECISIONS, TrainingSettings

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


@dataclass(frozen=True)
class ProvenanceSettings:
    """How and when a round is traced.

    Attributes:
        method: What is computed.
        inputs_per_label: Correctly predicted server inputs of each held label, at least 1.
        every: Rounds between two traced rounds, at least 1.
        counterfactual: Check the answers against each client's exact removal.
        batch_size: Inputs in one forward, at least 1.
        memory_budget: Bytes that an attribution may hold beyond the model, at least 1.
        precision: Of the products' factors.
    """

    method: Method
    inputs_per_label: int
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
        setting = f"{c['clients_per_round']}of{c['num_clients']}-{c['num_rounds']}r-seed{c['seed']}"
        name = f"{model}-{dataset}-{spread}-{setting}-{fingerprint(c)}"
    return Path(c["log_dir"]).expanduser() / str(c["exp_key"]) / str(name)


def fingerprint(config: Mapping[str, Any]) -> str:
    """Return eight hexadecimal digits that differ whenever two configurations can give different numbers."""
    kept = {key: value for key, value in config.items() if key not in CIRCUMSTANCES}
    kept["client_resources"] = config["client_resources"]["cpus"]  # a client's threads: they change the rounding
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:8]


@dataclass(frozen=True)
class _Rule:
    """What a key may hold."""

    kinds: tuple[type, ...]
    allowed: Callable[[Any], bool]
    wanted: str
    optional: bool = False

    def check(self, key: str, value: Any) -> None:
        if value is None and self.optional:
            return
        wrong_kind = not isinstance(value, self.kinds) or (isinstance(value, bool) and bool not in self.kinds)
        if wrong_kind or not self.allowed(value):
            raise ConfigError(f"{key} must be {self.wanted}{' or null' if self.optional else ''}, got {value!r}")


def _whole(least: int, optional: bool = False) -> _Rule:
    return _Rule((int,), lambda v: v >= least, f"a whole number of at least {least}", optional)


def _one_of(choices: tuple[str, ...]) -> _Rule:
    return _Rule((str,), lambda v: v in choices, f"one of {', '.join(choices)}")


def _is_address(text: str) -> bool:
    host, _, port = text.rpartition(":")
    return bool(host) and port.isdigit() and 0 < int(port) < 65536


_ABOVE_0 = _Rule((int, float), lambda v: 0 < v < float("inf"), "a number above 0")
_NOT_NEGATIVE = _Rule((int, float), lambda v: 0 <= v < float("inf"), "a number of at least 0")
_OPTIONAL_ABOVE_0 = dataclasses.replace(_ABOVE_0, optional=True)
_OPTIONAL_NOT_NEGATIVE = dataclasses.replace(_NOT_NEGATIVE, optional=True)
_FLAG = _Rule((bool,), lambda _: True, "true or false")
_NAME = _Rule((str,), lambda v: bool(v) and "/" not in v and v not in (".", ".."), "a folder's name without '/'")

_TEXT = _Rule((str,), bool, "text (in quotes where it looks like a number)")
_OPTIONAL_TEXT = _Rule(_TEXT.kinds, _TEXT.allowed, _TEXT.wanted, optional=True)

_RULES: dict[str, _Rule] = {
    "log_dir": _TEXT,
    "model.name": _TEXT,
    "dataset.name": _TEXT,
    "dataset.hub_id": _OPTIONAL_TEXT,
    "dataset.path": _OPTIONAL_TEXT,
    "dataset.root": _OPTIONAL_TEXT,
    "strategy.name": _one_of(tuple(choices("strategy"))),
    "privacy.name": _one_of(tuple(choices("privacy"))),
    "privacy.noise_multiplier": _OPTIONAL_NOT_NEGATIVE,
    "privacy.clipping_norm": _OPTIONAL_ABOVE_0,
    "privacy.initial_clipping_norm": _OPTIONAL_ABOVE_0,
    "privacy.target_clipped_quantile": _Rule((int, float), lambda v: 0 <= v <= 1, "a number in [0, 1]", optional=True),
    "privacy.clip_norm_lr": _OPTIONAL_ABOVE_0,
    "privacy.clipped_count_stddev": _OPTIONAL_NOT_NEGATIVE,
    "privacy.trace": _one_of(PRIVACY_TRACES),
    "privacy.max_grad_norm": _OPTIONAL_ABOVE_0,
    "privacy.target_epsilon": _OPTIONAL_ABOVE_0,
    "privacy.target_delta": _Rule((int, float), lambda v: 0 < v < 1, "a number in (0, 1)", optional=True),
    "privacy.max_physical_batch_size": _whole(1, optional=True),
    "exp_key": _NAME,
    "run_name": _Rule(_NAME.kinds, _NAME.allowed, _NAME.wanted, optional=True),
    "overwrite": _FLAG,
    "resume": _FLAG,
    "dry_run": _FLAG,
    "seed": _whole(0),
    "num_clients": _whole(1),
    "clients_per_round": _whole(1),
    "num_rounds": _whole(1),
    "dirichlet_alpha": _ABOVE_0,
    "batch_size": _whole(1),
    "client.epochs": _whole(1),
    "client.lr": _ABOVE_0,
    "client.optimizer": _one_of(OPTIMIZERS),
    "client.precision": _one_of(PRECISIONS),
    "device": _one_of(("cpu", "cuda")),
    "total_cpus": _whole(1, optional=True),
    "total_gpus": _whole(0, optional=True),
    "runs_at_once": _whole(1),
    "ray.address": _Rule((str,), _is_address, "HOST:PORT", optional=True),
    "client_resources.cpus": _whole(1),
    "client_resources.gpus": _Rule((int, float), lambda v: v >= 0, "a number of at least 0", optional=True),
    "store.keep": _one_of(KEEPS),
    "store.dtype": _one_of(tuple(DTYPES)),
    "store.kind": _one_of(KINDS),
    "strategy.min_clients": _whole(1),
    "strategy.timeout_seconds": _ABOVE_0,
    "strategy.proximal_mu": _NOT_NEGATIVE,
    "provenance.enabled": _FLAG,
    "provenance.layer_decay": _Rule((int, float), lambda v: 0 < v <= 1, "a number in (0, 1]"),
    "provenance.weighting": _one_of(WEIGHTINGS),
    "provenance.reference": _one_of(REFERENCES),
    "provenance.target": _one_of(METHOD_TARGETS),
    "provenance.inputs_per_label": _whole(1),
    "provenance.every": _whole(1),
    "provenance.counterfactual": _FLAG,
    "provenance.batch_size": _whole(1),
    "provenance.memory_budget": _ABOVE_0,
    "provenance.precision": _one_of(PRECISIONS),
    "wandb.mode": _one_of(("disabled", "online", "offline")),
}


def read_settings(cfg: DictConfig) -> Settings:
    """Check a composed configuration and turn it into settings.

    Raises:
        ConfigError: A value is missing or illegal, or two do not go together; one line, with the key.
    """
    missing = sorted(OmegaConf.missing_keys(cfg))
    if missing:
        raise ConfigError(f"{missing[0]} is not set: give {missing[0]}=...")
    config: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    for key, rule in _RULES.items():
        rule.check(key, _get(config, key))
    model = ModelSettings(**config["model"])
    dataset = DatasetSettings(**config["dataset"])
    partition = dataset.partition_settings(float(config["dirichlet_alpha"]))
    privacy = read_privacy(config["privacy"])
    _check_combinations(config, model, dataset, privacy)
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
    for key in group:
        rule = _RULES.get(f"provenance.{key}")
        if rule is not None:
            rule.check(f"provenance.{key}", group[key])
    layers = group["layers"]
    if layers is not None and not (isinstance(layers, list) and layers and all(isinstance(n, str) for n in layers)):
        raise ConfigError(f"provenance.layers must be a list of layer names such as [fc], or null, got {layers!r}")
    also = group.get("also", [])  # folders written before the key existed traced nothing more
    if not isinstance(also, list) or not set(map(str, also)) <= set(OPTIONS):
        raise ConfigError(f"provenance.also must be a list of {', '.join(OPTIONS)}, or [], got {also!r}")
    if not group["enabled"]:
        return None
    return ProvenanceSettings(
        method=Method(
            layer_decay=float(group["layer_decay"]),
            weighting=group["weighting"],
            reference=group["reference"],
            target=group["target"],
            layers=None if layers is None else tuple(layers),
            also=tuple(also),
        ),
        inputs_per_label=group["inputs_per_label"],
        every=group["every"],
        counterfactual=group["counterfactual"],
        batch_size=group["batch_size"],
        memory_budget=int(group["memory_budget"] * 2**30),
        precision=group["precision"],
    )


def _check_combinations(
    config: Mapping[str, Any], model: ModelSettings, dataset: DatasetSettings, privacy: PrivacySettings
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
    privacy.check_round(config["clients_per_round"])
    if privacy.is_dp_sgd and config["client"]["precision"] != "float32":
        raise ConfigError(f"privacy=dp_sgd needs client.precision=float32, got {config['client']['precision']}")
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


def _get(config: Mapping[str, Any], key: str) -> Any:
    value: Any = config
    for part in key.split("."):
        if not isinstance(value, Mapping) or part not in value:
            raise ConfigError(f"{key} is missing; groups cannot be null and keys cannot be removed")
        value = value[part]
    return value
