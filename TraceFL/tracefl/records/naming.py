"""The fingerprint of a run's configuration, which is in its name."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

# Keys that say where and how a run happens, and so change none of its numbers; with a key, all that lie below it.
CIRCUMSTANCES = (
    "exp_key",
    "run_name",
    "log_dir",
    "overwrite",
    "resume",
    "dry_run",
    "backend",
    "total_cpus",
    "total_gpus",
    "runs_at_once",
    "ray",
    "store",
    "strategy.isolate",
    "wandb",
)

HERE = (
    *("device", "backend", "total_cpus", "total_gpus", "ray", "client_resources", "wandb"),
    *("strategy.timeout_seconds", "strategy.isolate", "dataset.path", "dataset.root"),
)
"""Keys that say where a run happens, what it sends and where it reads: whoever trains a stored run again says them."""

NAMES_OR_PLACES = ("dataset.name", "model.name", "model.pretrained", "model.tokenizer")
"""Keys that name what is published, or a place of the machine that it was run on."""

FIRST_RUN = "experiment=first_run"
"""What runs where no word asks for another: what somebody new should see."""

# Beside the circumstances of a run, which change none of its numbers: what only says where it is computed.
_WHERE = ("device", "launcher", "hydra")

# Keys that came later, each with the value that means what was done before, which then leaves runs their names; or with
# several, in a tuple.
# The strategy's bounds change nothing of a run in which no client is refused or exceeds one, nor do provenance's.
LATER = {
    ("dataset", "train_split"): "train",
    ("dataset", "test_split"): "test",
    ("strategy", "max_update_norm"): 5,
    ("strategy", "max_weight"): None,
    ("strategy", "max_refusals"): 3,
    ("strategy", "malicious"): None,
    ("strategy", "selected"): None,
    ("strategy", "cut"): None,
    ("provenance", "max_update_norm"): 3,
    ("provenance", "max_estimate_error"): 1,
    ("provenance", "suspect_by"): "contribution",
    ("provenance", "class_inputs"): 10,
    ("provenance", "stand_outs"): (None, False),  # either adds nothing to a run's other numbers
    ("provenance", "false_alarms"): 0.01,
    ("baselines", "history"): 5,  # changes nothing without the rules that came with it
}

# Keys whose default became null, each with the number that was the default before, which stands for it in runs' names.
_NULL_WAS = {("strategy", "timeout_seconds"): 3600}


def fingerprint(config: Mapping[str, Any]) -> str:
    """Return eight hexadecimal digits that differ whenever two configurations can give different numbers."""
    kept = without_circumstances(config)
    for (group, key), before in LATER.items():
        means_before = before if isinstance(before, tuple) else (before,)
        if group in kept and key in kept[group] and kept[group][key] in means_before:
            del kept[group][key]
    for (group, key), before in _NULL_WAS.items():
        if group in kept and key in kept[group] and kept[group][key] is None:
            kept[group][key] = before
    kept["client_resources"] = config["client_resources"]["cpus"]  # a client's threads: they change the rounding
    return hashlib.sha256(json.dumps(_text_keys(kept), sort_keys=True).encode()).hexdigest()[:8]


def is_circumstance(key: str) -> bool:
    """Return whether a dotted key is one of ``CIRCUMSTANCES``, or lies below one."""
    return is_below(key, CIRCUMSTANCES)


def is_below(key: str, keys: Sequence[str]) -> bool:
    """Return whether a dotted key is one of some, or lies below one."""
    return any(f"{key}.".startswith(f"{each}.") for each in keys)


def asked_for(words: Sequence[str]) -> list[str]:
    """Return the keys of a command's words that ask for another run than the first: all but circumstances.

    Args:
        words: Hydra's options, and ``key=value``.
    """
    keys = [word.partition("=")[0].lstrip("+~") for word in words if "=" in word and not word.startswith("-")]
    return [key for key in keys if not is_circumstance(key) and key.partition(".")[0] not in _WHERE]


def with_first_run(words: Sequence[str]) -> list[str]:
    """Return the words of a run: with ``FIRST_RUN``, before all keys, where they ask for no other.

    Args:
        words: Hydra's options, and after them ``key=value``.
    """
    if asked_for(words):
        return list(words)
    options = next((i for i, word in enumerate(words) if "=" in word and not word.startswith("-")), len(words))
    return [*words[:options], FIRST_RUN, *words[options:]]


def without_circumstances(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a configuration without its ``CIRCUMSTANCES``."""
    return {
        key: without_circumstances(value, f"{prefix}{key}.") if isinstance(value, Mapping) else value
        for key, value in config.items()
        if not is_circumstance(f"{prefix}{key}")
    }


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a configuration's values by their dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def _text_keys(node: Any) -> Any:
    """Return a configuration with all keys as text, as JSON has them: numbers and text cannot be sorted together."""
    if isinstance(node, Mapping):
        return {str(key): _text_keys(value) for key, value in node.items()}
    return node
