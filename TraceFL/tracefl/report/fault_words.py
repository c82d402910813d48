"""A run's fault in few words, from its configuration; runs from before there were faults have none."""

from collections.abc import Mapping
from typing import Any

NO_FAULT = "none"
# Faults of which `fault.share` is a part; the others change a client's weights, not its examples.
_WITH_SHARE = ("label_flip", "random_labels", "backdoor")


def fault_name(config: Mapping[str, Any]) -> str:
    """Return the fault's name, ``none`` where there is none."""
    return str(config.get("fault", {}).get("name") or NO_FAULT)


def fault_share(config: Mapping[str, Any]) -> float | None:
    """Return the share of the faulty clients' matching examples that is changed, None where the fault changes none."""
    return float(config["fault"]["share"]) if fault_name(config) in _WITH_SHARE else None


def faulty_clients(config: Mapping[str, Any]) -> int:
    """Return how many clients are faulty."""
    if fault_name(config) == NO_FAULT:
        return 0
    fault = config["fault"]
    return int(fault["num_clients"] or len(fault["clients"]))


def fault_words(config: Mapping[str, Any]) -> str:
    """Return the fault as text such as ``label_flip 30 %, 2 of 10``, ``none`` where there is none."""
    name, share = fault_name(config), fault_share(config)
    if name == NO_FAULT:
        return name
    words = (
        f"{name}{'' if share is None else f' {100 * share:g} %'}, {faulty_clients(config)} of {config['num_clients']}"
    )
    begins = config["fault"]["from_round"]
    return words if begins in (None, 0, 1) else f"{words}, from round {begins}"
