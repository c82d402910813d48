"""A run's fault in few words, from its configuration; runs from before there were faults have none."""

from collections.abc import Mapping
from typing import Any

NO_FAULT = "none"
_OF_A_KIND = {"target": 0, "trigger_size": 4, "trigger_token": None, "scale": None}  # key to what needs no words


def fault_name(config: Mapping[str, Any]) -> str:
    """Return the fault's name, ``none`` where there is none."""
    return str(_fault(config)["name"])


def fault_share(config: Mapping[str, Any]) -> float | None:
    """Return the share of the faulty clients' matching examples that is changed, None where the fault changes none."""
    share = _fault(config).get("share")
    return None if share is None else float(share)


def faulty_clients(config: Mapping[str, Any]) -> int:
    """Return how many clients are faulty."""
    fault = _fault(config)
    clients = fault.get("clients")  # not checked here: a job script counts before it runs
    named = len(clients) if isinstance(clients, list) else 1
    return 0 if fault["name"] == NO_FAULT else int(fault["num_clients"] or named)


def describe_fault(config: Mapping[str, Any]) -> str:
    """Return the fault as text such as ``label_flip 30 %, 2 of 10``, ``none`` where there is none."""
    fault, share = _fault(config), fault_share(config)
    if fault["name"] == NO_FAULT:
        return NO_FAULT
    flips = "".join(f" {label}>{becomes}" for label, becomes in (fault.get("flip") or {}).items())
    flips += f" all>{fault['all_to']}" if fault.get("all_to") else ""  # null and 0 are the same
    flips += "".join(f" {key}={fault[key]}" for key in _OF_A_KIND if fault.get(key) not in (None, _OF_A_KIND[key]))
    changed = "" if share is None else f" {100 * share:g} %"
    words = f"{fault['name']}{flips}{changed}, {faulty_clients(config)} of {config['num_clients']}"
    return words if fault["from_round"] == 1 else f"{words}, from round {fault['from_round']}"


def fault_order(config: Mapping[str, Any]) -> tuple[str, int, float]:
    """Return what sorts faults: by name, then fewest clients first, then from the share that is easiest to see."""
    return fault_name(config), faulty_clients(config), -(fault_share(config) or 0.0)


def _fault(config: Mapping[str, Any]) -> Mapping[str, Any]:
    fault: Mapping[str, Any] = config.get("fault", {"name": NO_FAULT})
    return fault
