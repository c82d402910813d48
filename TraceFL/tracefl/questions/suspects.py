"""Provenance compared with every simpler rule on a round's mispredicted inputs: the rows of suspects.csv."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple
from typing import Any

import torch
from torch import Tensor

from tracefl.provenance import score_suspicions
from tracefl.provenance.scoring import mean_measured
from tracefl.questions.baselines import RULES, Evidence, NotApplicableError
from tracefl.records.tables import INPUT_MEASURES, ROUND_MEASURES, SUSPECT_COLUMNS, SUSPECT_MEASURES

PROVENANCE = "provenance"
NOBODY_FAULTY = "no participant is faulty in this round"
Row = dict[str, Any]


def compare_rules(
    contributions: Tensor,
    provenance_seconds: float,
    evidence: Evidence,
    faulty: Tensor | None,
    rules: Sequence[str],
) -> tuple[Row, ...]:
    """Score provenance and the chosen rules.

    Args:
        contributions: ``(M, K)`` contributions that provenance found, in logits, at least one row.
        provenance_seconds: Wall time of computing them.
        evidence: The round and its M inputs.
        faulty: ``(K,)`` bool; None where the faulty clients are not known, so that nothing is scored.
        rules: Names of ``RULES``.

    Returns:
        One row of suspects.csv for each rule; fractions 0 to 1, None where nothing was measured.
    """
    rows = [_row(PROVENANCE, evidence, faulty, contributions.double(), provenance_seconds)]
    for name in rules:
        began = time.perf_counter()
        try:
            suspicions = RULES[name](evidence)
        except NotApplicableError as error:
            rows.append(_row(name, evidence, faulty, note=str(error)))
            continue
        rows.append(_row(name, evidence, faulty, suspicions, time.perf_counter() - began))
    return tuple(rows)


def row_without_inputs(server_round: int, client_ids: Sequence[str], faulty: Tensor | None) -> Row:
    """Return the row of a round without a misprediction to trace, or without a faulty client to find.

    Args:
        server_round: The round, from 1.
        client_ids: Its K participants.
        faulty: ``(K,)`` bool; None where the faulty clients are not known.
    """
    nobody = faulty is not None and not faulty.any()
    return _empty_row(server_round, client_ids, faulty) | {
        "rule": PROVENANCE,
        "inputs": 0,
        "note": NOBODY_FAULTY if nobody else "no input is mispredicted so",
    }


def mean_suspects(rows: Iterable[Mapping[str, Any]]) -> dict[str, Row]:
    """Return each rule's means over the rounds with inputs, for results.json; empty where nothing was compared.

    ``rounds`` counts the rounds with inputs, ``rounds_without_inputs`` those without, and ``rounds_without_faulty``
    those without a faulty participant. ``seconds_per_input`` is over all inputs. ``note`` says why a rule does not
    apply.
    """
    of_rule: dict[str, list[Mapping[str, Any]]] = {}
    without = {"rounds_without_inputs": 0, "rounds_without_faulty": 0}
    for row in rows:
        found = of_rule.setdefault(row["rule"], [])
        if row["inputs"]:
            found.append(row)
        else:
            without["rounds_without_faulty" if row["note"] == NOBODY_FAULTY else "rounds_without_inputs"] += 1
    return {rule: _means(found) | without for rule, found in of_rule.items()}


def _means(rows: Sequence[Mapping[str, Any]]) -> Row:
    measured = [row for row in rows if row["seconds"] is not None]
    inputs = sum(row["inputs"] for row in measured)
    seconds = sum(row["seconds"] for row in measured)
    return {name: mean_measured([row[name] for row in measured]) for name in SUSPECT_MEASURES} | {
        "seconds_per_input": seconds / inputs if inputs else None,
        "seconds_per_round": seconds / len(measured) if measured else None,
        "inputs": inputs,
        "rounds": len(measured),
        "note": next((row["note"] for row in rows if row["note"]), ""),  # such as why it does not apply
    }


def _row(
    rule: str,
    evidence: Evidence,
    faulty: Tensor | None,
    suspicions: Tensor | None = None,
    seconds: float | None = None,
    note: str = "",
) -> Row:
    """Return a rule's row; ``suspicions`` are ``(M, K)``, or ``(K,)`` where they are the same for every input."""
    ids, num_inputs = tuple(evidence.record.clients), len(evidence.predicted)
    row = _empty_row(evidence.record.server_round, ids, faulty) | {"rule": rule, "inputs": num_inputs, "note": note}
    if suspicions is None:
        return row
    suspicions = suspicions.expand(num_inputs, len(ids))
    whole = suspicions.sum(dim=0)  # (K,)
    order = torch.argsort(whole, descending=True, stable=True).tolist()
    row |= {"seconds": seconds, "ranking": " ".join(f"{ids[k]}:{float(whole[k]):.6g}" for k in order)}
    if faulty is not None and faulty.any():
        row |= {"chance_accuracy": float(faulty.double().mean())}
        row |= dict(zip(INPUT_MEASURES, astuple(score_suspicions(suspicions, faulty)), strict=True))
        row |= dict(zip(ROUND_MEASURES, astuple(score_suspicions(whole, faulty)), strict=True))
    return row


def _empty_row(server_round: int, client_ids: Sequence[str], faulty: Tensor | None) -> Row:
    named = [] if faulty is None else [client_ids[k] for k in torch.nonzero(faulty).flatten().tolist()]
    return dict.fromkeys(SUSPECT_COLUMNS) | {
        "round": server_round,
        "faulty_clients": " ".join(named),
        "clients": len(client_ids),
    }
