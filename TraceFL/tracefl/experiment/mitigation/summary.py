"""Summary of what mitigation did in a run, and to which clients."""

from collections.abc import Iterable, Mapping
from typing import Any

from tracefl.experiment.mitigation.decision import DOWNWEIGHT, EXCLUDE, RESTORE, TOO_FEW
from tracefl.learning.faults import Fault
from tracefl.records.result import bounds_words

_KEPT = ("client", "decision", "from_round", "toward", "total", "window_rounds", "window_gain")
_DONE = {
    EXCLUDE: "excluded from round {from_round} on",
    DOWNWEIGHT: "weighs less from round {from_round} on",
    RESTORE: "is back at its full weight from round {from_round} on",
    TOO_FEW: "not excluded in round {from_round}, for too few would have been left",
}
_KNOWN = {None: "", True: " (faulty)", False: " (honest)"}


def summarize_mitigation(
    name: str, rows: Iterable[Mapping[str, Any]], fault: Fault | None, everyone_is_known: bool
) -> dict[str, Any]:
    """Return the entry ``mitigation`` of results.json.

    Args:
        name: ``exclude`` or ``downweight``.
        rows: Rows of mitigation.csv.
        fault: What some clients did wrong.
        everyone_is_known: All other clients are known to be honest: true of a simulation, false of a deployment.

    Returns:
        ``decisions``: each with its evidence, and whether the client was faulty in the round of the decision.
        ``clients_hit``: number of clients that were excluded or down-weighted. ``honest_clients_hit``: number of those
        that were not faulty then; None where unknown.
    """
    decided = [row for row in rows if row["decision"]]
    faulty = [
        (fault is not None and fault.is_active(row["client"], row["round"])) if everyone_is_known else None
        for row in decided
    ]
    hit: dict[str, bool | None] = {}
    for row, known in zip(decided, faulty, strict=True):
        if row["decision"] in (EXCLUDE, DOWNWEIGHT):
            hit.setdefault(row["client"], known)
    return {
        "name": name,
        "decisions": [
            {**{key: row[key] for key in _KEPT}, "faulty": known} for row, known in zip(decided, faulty, strict=True)
        ],
        "clients_hit": len(hit),
        "honest_clients_hit": sum(not known for known in hit.values()) if everyone_is_known else None,
    }


def mitigation_words(found: Mapping[str, Any]) -> str:
    """Return a summary in one line.

    Args:
        found: The result of ``summarize_mitigation``, with ``clients_refused`` and ``clients_capped`` of results.json.
    """
    counted = f"mitigate={found['name']}: clients hit: {found['clients_hit']}"
    if found["honest_clients_hit"] is not None:
        counted += f", honest ones among them: {found['honest_clients_hit']}"
    decisions = (
        f"client {each['client']}{_KNOWN[each['faulty']]} {_DONE[each['decision']].format(**each)}"
        for each in found["decisions"]
    )
    return "; ".join((counted, *decisions, *bounds_words(found["clients_refused"], found["clients_capped"])))
