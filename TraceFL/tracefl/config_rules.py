"""What each key of the configuration may hold."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tracefl.cli import choices
from tracefl.errors import ConfigError
from tracefl.privacy import PRIVACY_TRACES
from tracefl.provenance.method import METHOD_TARGETS, REFERENCES, WEIGHTINGS
from tracefl.rounds import DTYPES, KEEPS, KINDS
from tracefl.training import OPTIMIZERS, PRECISIONS

INPUTS = ("correct", "mispredicted", "all")


@dataclass(frozen=True)
class Rule:
    """What a key may hold."""

    kinds: tuple[type, ...]
    allowed: Callable[[Any], bool]
    wanted: str
    optional: bool = False

    def check(self, key: str, value: Any) -> None:
        """Raise a ConfigError where the key may not hold the value."""
        if value is None and self.optional:
            return
        wrong_kind = not isinstance(value, self.kinds) or (isinstance(value, bool) and bool not in self.kinds)
        if wrong_kind or not self.allowed(value):
            raise ConfigError(f"{key} must be {self.wanted}{' or null' if self.optional else ''}, got {value!r}")


def _whole(least: int, optional: bool = False) -> Rule:
    return Rule((int,), lambda v: v >= least, f"a whole number of at least {least}", optional)


def _one_of(choices: tuple[str, ...]) -> Rule:
    return Rule((str,), lambda v: v in choices, f"one of {', '.join(choices)}")


def _is_address(text: str) -> bool:
    host, _, port = text.rpartition(":")
    return bool(host) and port.isdigit() and 0 < int(port) < 65536


_ABOVE_0 = Rule((int, float), lambda v: 0 < v < float("inf"), "a number above 0")
_NOT_NEGATIVE = Rule((int, float), lambda v: 0 <= v < float("inf"), "a number of at least 0")
_OPTIONAL_ABOVE_0 = dataclasses.replace(_ABOVE_0, optional=True)
_OPTIONAL_NOT_NEGATIVE = dataclasses.replace(_NOT_NEGATIVE, optional=True)
_FLAG = Rule((bool,), lambda _: True, "true or false")
_NAME = Rule((str,), lambda v: bool(v) and "/" not in v and v not in (".", ".."), "a folder's name without '/'")

_VERIFY = Rule(
    (int, str),
    lambda v: v == "all" or (isinstance(v, int) and v >= 0),
    "a whole number of at least 0 or all",
    optional=True,
)

_LABEL = Rule((int,), lambda v: v >= 0, "a class, from 0", optional=True)


def _is_index(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


_CLIENTS = Rule(
    (list,),
    lambda v: bool(v) and all(map(_is_index, v)) and len(set(v)) == len(v),
    "a list of different client numbers such as [0] or [0,3]",
    optional=True,
)
_WITHOUT = Rule(
    (list,),
    lambda v: all(map(_is_index, v)) and len(set(v)) == len(v),
    "a list of different client numbers such as [3,7], or []",
)
_FLIP = Rule(
    (dict,),
    lambda v: bool(v) and all(map(_is_index, (*v, *v.values()))),
    "a mapping of classes, from 0, such as {1: 0, 2: 0}",
    optional=True,
)

_TEXT = Rule((str,), bool, "text (in quotes where it looks like a number)")
_OPTIONAL_TEXT = Rule(_TEXT.kinds, _TEXT.allowed, _TEXT.wanted, optional=True)

RULES: dict[str, Rule] = {
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
    "privacy.target_clipped_quantile": Rule((int, float), lambda v: 0 <= v <= 1, "a number in [0, 1]", optional=True),
    "privacy.clip_norm_lr": _OPTIONAL_ABOVE_0,
    "privacy.clipped_count_stddev": _OPTIONAL_NOT_NEGATIVE,
    "privacy.trace": _one_of(PRIVACY_TRACES),
    "privacy.max_grad_norm": _OPTIONAL_ABOVE_0,
    "privacy.target_epsilon": _OPTIONAL_ABOVE_0,
    "privacy.target_delta": Rule((int, float), lambda v: 0 < v < 1, "a number in (0, 1)", optional=True),
    "privacy.max_physical_batch_size": _whole(1, optional=True),
    "fault.name": _one_of(tuple(choices("fault"))),
    "fault.clients": _CLIENTS,
    "fault.num_clients": _whole(1, optional=True),
    "fault.from_round": _whole(1, optional=True),
    "fault.min_examples": _whole(1, optional=True),
    "fault.share": Rule((int, float), lambda v: 0 < v <= 1, "a number in (0, 1]", optional=True),
    "fault.flip": _FLIP,
    "fault.all_to": _LABEL,
    "fault.target": _LABEL,
    "fault.trigger_size": _whole(1, optional=True),
    "fault.trigger_token": _whole(0, optional=True),
    "fault.scale": _OPTIONAL_NOT_NEGATIVE,
    "mitigate.name": _one_of(tuple(choices("mitigate"))),
    "mitigate.share": Rule((int, float), lambda v: 0 < v <= 1, "a number in (0, 1]", optional=True),
    "mitigate.gain": Rule((int, float), lambda v: 0 < v < 1, "a number in (0, 1)", optional=True),
    "mitigate.window": _whole(1, optional=True),
    "mitigate.from_round": _whole(1, optional=True),
    "mitigate.min_mispredictions": _whole(1, optional=True),
    "mitigate.factor": Rule((int, float), lambda v: 0 < v < 1, "a number in (0, 1)", optional=True),
    "exp_key": _NAME,
    "run_name": Rule(_NAME.kinds, _NAME.allowed, _NAME.wanted, optional=True),
    "overwrite": _FLAG,
    "resume": _FLAG,
    "dry_run": _FLAG,
    "seed": _whole(0),
    "num_clients": _whole(1),
    "clients_per_round": _whole(1),
    "without": _WITHOUT,
    "without_from": _whole(1),
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
    "ray.address": Rule((str,), _is_address, "HOST:PORT", optional=True),
    "client_resources.cpus": _whole(1),
    "client_resources.gpus": Rule((int, float), lambda v: v >= 0, "a number of at least 0", optional=True),
    "store.keep": _one_of(KEEPS),
    "store.dtype": _one_of(tuple(DTYPES)),
    "store.kind": _one_of(KINDS),
    "strategy.min_clients": _whole(1),
    "strategy.timeout_seconds": _ABOVE_0,
    "strategy.proximal_mu": _NOT_NEGATIVE,
    "strategy.inputs": dataclasses.replace(_one_of(INPUTS), optional=True),
    "strategy.temperature": _OPTIONAL_ABOVE_0,
    "strategy.wrong_weight": _OPTIONAL_NOT_NEGATIVE,
    "strategy.exploration": Rule((int, float), lambda v: 0 < v <= 1, "a number in (0, 1]", optional=True),
    "provenance.enabled": _FLAG,
    "provenance.layer_decay": Rule((int, float), lambda v: 0 < v <= 1, "a number in (0, 1]"),
    "provenance.weighting": _one_of(WEIGHTINGS),
    "provenance.reference": _one_of(REFERENCES),
    "provenance.target": _one_of(METHOD_TARGETS),
    "provenance.inputs_per_label": _whole(1),
    "provenance.inputs": dataclasses.replace(_one_of(INPUTS), optional=True),
    "provenance.max_inputs": _whole(1),
    "provenance.every": _whole(1),
    "provenance.counterfactual": _FLAG,
    "provenance.verify": _VERIFY,
    "provenance.batch_size": _whole(1),
    "provenance.memory_budget": _ABOVE_0,
    "provenance.precision": _one_of(PRECISIONS),
    "wandb.mode": _one_of(("disabled", "online", "offline")),
}


def check_values(config: Mapping[str, Any]) -> None:
    """Check every key of a whole configuration by itself.

    Raises:
        ConfigError: A key is missing or its value illegal.
    """
    for key, rule in RULES.items():
        rule.check(key, value_at(config, key))


def check_group(name: str, group: Mapping[str, Any]) -> None:
    """Check the keys that a group has; those that it lacks are not asked for.

    Raises:
        ConfigError: A value is illegal.
    """
    for key, value in group.items():
        rule = RULES.get(f"{name}.{key}")
        if rule is not None:
            rule.check(f"{name}.{key}", value)


def value_at(config: Mapping[str, Any], key: str) -> Any:
    """Return the value of a dotted key.

    Raises:
        ConfigError: It is missing.
    """
    value: Any = config
    for part in key.split("."):
        if not isinstance(value, Mapping) or part not in value:
            raise ConfigError(f"{key} is missing; groups cannot be null and keys cannot be removed")
        value = value[part]
    return value
