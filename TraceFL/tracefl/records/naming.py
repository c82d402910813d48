"""What a run is called: its folder, and the fingerprint of its configuration."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tracefl.learning.faults import fault_words

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
