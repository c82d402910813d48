"""What each key of the configuration may hold."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from tracefl.conf.cli import choices
from tracefl.conf.rules import (
    ABOVE_0,
    FLAG,
    NAME,
    NOT_NEGATIVE,
    OPTIONAL_ABOVE_0,
    OPTIONAL_NOT_NEGATIVE,
    OPTIONAL_TEXT,
    TEXT,
    Rule,
    is_index,
    one_of,
    value_at,
    whole,
)
from tracefl.learning.privacy import PRIVACY_TRACES
from tracefl.learning.training import OPTIMIZERS, PRECISIONS
from tracefl.questions.settings import INPUTS, PROVENANCE_RULES
from tracefl.records.store import DTYPES, KEEPS, KINDS


def _is_address(text: str) -> bool:
    host, _, port = text.rpartition(":")
    return bool(host) and port.isdigit() and 0 < int(port) < 65536


_LABEL = Rule((int,), lambda v: v >= 0, "a class, from 0", optional=True)


_CLIENTS = Rule(
    (list,),
    lambda v: bool(v) and all(map(is_index, v)) and len(set(v)) == len(v),
    "a list of different client numbers such as [0] or [0,3]",
    optional=True,
)
_WITHOUT = Rule(
    (list,),
    lambda v: all(map(is_index, v)) and len(set(v)) == len(v),
    "a list of different client numbers such as [3,7], or []",
)
_FLIP = Rule(
    (dict,),
    lambda v: bool(v) and all(map(is_index, (*v, *v.values()))),
    "a mapping of classes, from 0, such as {1: 0, 2: 0}",
    optional=True,
)


RULES: dict[str, Rule] = {
    "log_dir": TEXT,
    "model.name": TEXT,
    "dataset.name": TEXT,
    "dataset.hub_id": OPTIONAL_TEXT,
    "dataset.path": OPTIONAL_TEXT,
    "dataset.root": OPTIONAL_TEXT,
    "strategy.name": one_of(tuple(choices("strategy"))),
    "privacy.name": one_of(tuple(choices("privacy"))),
    "privacy.noise_multiplier": OPTIONAL_NOT_NEGATIVE,
    "privacy.clipping_norm": OPTIONAL_ABOVE_0,
    "privacy.initial_clipping_norm": OPTIONAL_ABOVE_0,
    "privacy.target_clipped_quantile": Rule((int, float), lambda v: 0 <= v <= 1, "a number in [0, 1]", optional=True),
    "privacy.clip_norm_lr": OPTIONAL_ABOVE_0,
    "privacy.clipped_count_stddev": OPTIONAL_NOT_NEGATIVE,
    "privacy.trace": one_of(PRIVACY_TRACES),
    "privacy.max_grad_norm": OPTIONAL_ABOVE_0,
    "privacy.target_epsilon": OPTIONAL_ABOVE_0,
    "privacy.target_delta": Rule((int, float), lambda v: 0 < v < 1, "a number in (0, 1)", optional=True),
    "privacy.max_physical_batch_size": whole(1, optional=True),
    "fault.name": one_of(tuple(choices("fault"))),
    "fault.clients": _CLIENTS,
    "fault.num_clients": whole(1, optional=True),
    "fault.from_round": whole(1, optional=True),
    "fault.min_examples": whole(1, optional=True),
    "fault.share": Rule((int, float), lambda v: 0 < v <= 1, "a number in (0, 1]", optional=True),
    "fault.flip": _FLIP,
    "fault.all_to": _LABEL,
    "fault.target": _LABEL,
    "fault.trigger_size": whole(1, optional=True),
    "fault.trigger_token": whole(0, optional=True),
    "fault.scale": OPTIONAL_NOT_NEGATIVE,
    "mitigate.name": one_of(tuple(choices("mitigate"))),
    "mitigate.share": Rule((int, float), lambda v: 0 < v <= 1, "a number in (0, 1]", optional=True),
    "mitigate.gain": Rule((int, float), lambda v: 0 < v < 1, "a number in (0, 1)", optional=True),
    "mitigate.window": whole(1, optional=True),
    "mitigate.from_round": whole(1, optional=True),
    "mitigate.min_mispredictions": whole(1, optional=True),
    "mitigate.factor": Rule((int, float), lambda v: 0 < v < 1, "a number in (0, 1)", optional=True),
    "exp_key": NAME,
    "run_name": Rule(NAME.kinds, NAME.allowed, NAME.wanted, optional=True),
    "overwrite": FLAG,
    "resume": FLAG,
    "dry_run": FLAG,
    "seed": whole(0),
    "num_clients": whole(1),
    "clients_per_round": whole(1),
    "without": _WITHOUT,
    "without_from": whole(1),
    "num_rounds": whole(1),
    "dirichlet_alpha": ABOVE_0,
    "batch_size": whole(1),
    "client.epochs": whole(1),
    "client.lr": ABOVE_0,
    "client.optimizer": one_of(OPTIMIZERS),
    "client.precision": one_of(PRECISIONS),
    "device": one_of(("cpu", "cuda")),
    "total_cpus": whole(1, optional=True),
    "total_gpus": whole(0, optional=True),
    "runs_at_once": whole(1),
    "ray.address": Rule((str,), _is_address, "HOST:PORT", optional=True),
    "client_resources.cpus": whole(1),
    "client_resources.gpus": Rule((int, float), lambda v: v >= 0, "a number of at least 0", optional=True),
    "store.keep": one_of(KEEPS),
    "store.dtype": one_of(tuple(DTYPES)),
    "store.kind": one_of(KINDS),
    "strategy.min_clients": whole(1),
    "strategy.timeout_seconds": ABOVE_0,
    "strategy.proximal_mu": NOT_NEGATIVE,
    "strategy.inputs": dataclasses.replace(one_of(INPUTS), optional=True),
    "strategy.temperature": OPTIONAL_ABOVE_0,
    "strategy.wrong_weight": OPTIONAL_NOT_NEGATIVE,
    "strategy.exploration": Rule((int, float), lambda v: 0 < v <= 1, "a number in (0, 1]", optional=True),
    **PROVENANCE_RULES,
    "wandb.mode": one_of(("disabled", "online", "offline")),
}


def check_values(config: Mapping[str, Any]) -> None:
    """Check every key of a whole configuration by itself.

    Raises:
        ConfigError: A key is missing or its value illegal.
    """
    for key, rule in RULES.items():
        rule.check(key, value_at(config, key))
