"""What faulty clients did, in words."""

from collections.abc import Sequence

from tracefl.common.words import percent
from tracefl.learning.faults import Fault

MOST_NAMED = 3
"""Clients, or flipped labels, that are named; of more, their number is given."""


def what_was_done(fault: Fault, names: Sequence[str]) -> str:
    """Return what the faulty clients did, as the run was configured, without a full stop."""
    who, many = listed(fault.clients), len(fault.clients) > 1
    were, their = ("were", "their") if many else ("was", "its")
    since = "" if fault.from_round == 1 else f", from round {fault.from_round} on"
    share = "" if fault.share in (None, 1) else f" in {percent(fault.share)} of such examples"
    if fault.name == "weight_noise":
        return f"{who} added noise to {their} weights{since}"
    if fault.name == "free_rider":
        return f"{who} sent the global weights back without training{since}"
    if fault.name == "random_labels":
        taught = "labels drawn at random"
    elif fault.target is not None:
        taught = f"that a trigger means {names[fault.target]}"
    elif len(fault.flips) <= MOST_NAMED:
        taught = "that " + _and([f"{names[label]} is {names[to]}" for label, to in fault.flips.items()])
    elif len(set(fault.flips.values())) == 1:
        taught = f"that every class is {names[next(iter(fault.flips.values()))]}"
    else:
        taught = f"false labels for {len(fault.flips)} classes"
    return f"{who} {were} taught {taught}{share}{since}"


def listed(clients: Sequence[str]) -> str:
    """Return clients as ``Clients 3 and 7``, or how many, of more than eight."""
    if len(clients) > 8:
        return f"{len(clients)} clients"
    return f"Client{'s' if len(clients) > 1 else ''} {_and(sorted(clients, key=client_order))}"


def _and(parts: Sequence[str]) -> str:
    *others, last = parts
    return f"{', '.join(others)} and {last}" if others else last


def client_order(client_id: str) -> tuple[int, str]:
    """Return a sort key for clients' ids: numbers first, by size."""
    return (int(client_id) if client_id.isdecimal() else -1, client_id)
