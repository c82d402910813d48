"""A round without each of its clients, as rows of a CSV, as JSON, and as a table in the terminal."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from tracefl.ground_truth import GroundTruth, known
from tracefl.report.terminal import percent, say, two_ends

CLIENTS_SHOWN = 20
COUNTERFACTUAL_COLUMNS = (
    *("round", "input_index", "label", "predicted", "centered_logit", "probability"),
    *("client", "weight", "faulty", "effect"),
    *("centered_logit_without", "probability_without", "predicted_without"),
    *("shapley", "shapley_standard_error"),
)
"""A row an input and client. ``centered_logit``: the predicted class's logit less the mean of all, with all clients;
``effect``: by how much it falls without the client, in logits. ``weight``: the client's in the average. ``faulty`` is
empty where nothing is known to be wrong; what follows ``effect``, it included, where the model without the client gives
no finite logits; ``shapley`` where it was not asked for."""


def counterfactual_rows(truth: GroundTruth) -> Iterator[dict[str, Any]]:
    """Yield the rows of the CSV: the inputs in their order, and of each the clients in theirs."""
    for i in range(len(truth.input_indices)):
        whole = _input(truth, i)
        for k in range(len(truth.found.client_ids)):
            yield {"round": truth.server_round, **whole, **_client(truth, i, k)}


def as_json(truth: GroundTruth) -> dict[str, Any]:
    """Return all of it in JSON's types; fractions 0 to 1, effects and Shapley values in logits, seconds."""
    shapley = truth.shapley
    return {
        "round": truth.server_round,
        "asked": truth.inputs,
        "chance_first": 1 / len(truth.found.client_ids),
        "clients": truth.clients(),
        "shapley": None
        if shapley is None
        else {
            "method": "exact" if shapley.permutations is None else "sampled",
            "permutations": shapley.permutations,
            "seconds": truth.shapley_seconds,
        },
        "inputs": [
            {
                **_input(truth, i),
                "shapley_total": None if shapley is None else float(shapley.total[i]),
                "clients": [_client(truth, i, k) for k in range(len(truth.found.client_ids))],
            }
            for i in range(len(truth.input_indices))
        ],
        "seconds": truth.seconds,
    }


def show(console: Console, truth: GroundTruth, name: str, csv: Path | None) -> None:
    """Print a line a client, and what it stands on."""
    clients = {row["client"]: row for row in truth.clients()}
    shown, middle = two_ends(list(clients), CLIENTS_SHOWN)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    headings = ["client", "weight", "mean\neffect", "first", "predictions\nchanged", "right\nwithout"]
    if truth.shapley is not None:
        headings += ["mean\nShapley"] + ["standard\nerror"] * (truth.shapley.permutations is not None)
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for place, client_id in enumerate(shown):
        row = clients[client_id]
        cells = [
            f"{'*' if row['faulty'] else ''}{client_id}",
            percent(row["weight"]),
            _signed(row["effect"]),
            str(row["first"]),
            *(str(row[name]) if row["measured"] else "-" for name in ("changed", "right")),
            _signed(row["shapley"]),
            "-" if row["shapley_standard_error"] is None else f"{row['shapley_standard_error']:.3f}",
        ]
        table.add_row(*cells[: len(headings)], end_section=bool(middle) and place == CLIENTS_SHOWN // 2 - 1)
    count = len(truth.input_indices)
    right = sum(a == b for a, b in zip(truth.labels, truth.found.predicted.tolist(), strict=True))
    say(
        console,
        f"{name}, round {truth.server_round}: {count} inputs ({right} predicted right, {count - right} wrong), each of "
        f"{len(clients)} clients left out of the average",
    )
    console.print(table)
    for line in _notes(truth, clients, middle):
        say(console, line)
    say(console, f"every input and client: {csv or 'csv=FILE or --json'}")


def _notes(truth: GroundTruth, clients: dict[str, dict[str, Any]], middle: int) -> Iterator[str]:
    """Yield what a reader of the table has to know."""
    yield (
        "effect: by how much the predicted class's centered logit falls without the client; first: inputs where it "
        f"falls most (by chance {percent(1 / len(clients))})"
    )
    if middle:
        yield f"{middle} more clients between the two parts of the table"
    if truth.faulty is not None:
        named = [client_id for client_id, row in clients.items() if row["faulty"]]
        yield f"* faulty: {' '.join(sorted(named, key=int))}" if named else "no client is faulty in this round"
    count = len(truth.input_indices)
    for client_id, row in clients.items():
        if row["measured"] < count:
            yield (
                f"without client {client_id} the model gives no finite logits for {count - row['measured']} of {count} "
                "inputs: they are left out of its mean"
            )
    if truth.shapley is not None:
        how = "exact, over all subsets"
        if truth.shapley.permutations is not None:
            how = (
                f"estimated from {truth.shapley.permutations} orders of the clients; the standard error is the mean of "
                "the inputs' own, and no less than the mean's"
            )
        yield f"Shapley values: {how}; {truth.shapley_seconds:.1f} s"
    yield f"removals: {truth.seconds:.1f} s"


def _input(truth: GroundTruth, i: int) -> dict[str, Any]:
    return {
        "input_index": truth.input_indices[i],
        "label": truth.labels[i],
        "predicted": int(truth.found.predicted[i]),
        "centered_logit": float(truth.found.centered_logits[i]),
        "probability": float(truth.found.probabilities[i]),
    }


def _client(truth: GroundTruth, i: int, k: int) -> dict[str, Any]:
    found, shapley = truth.found, truth.shapley
    return {
        "client": found.client_ids[k],
        "weight": truth.client_weights[k],
        "faulty": None if truth.faulty is None else truth.faulty[k],
        "effect": known(found.effects[i, k]),
        "centered_logit_without": known(found.centered_logits_without[i, k]),
        "probability_without": known(found.probabilities_without[i, k]),
        "predicted_without": int(found.predicted_without[i, k]) if found.measured[i, k] else None,
        "shapley": None if shapley is None else float(shapley.values[i, k]),
        "shapley_standard_error": None if shapley is None else float(shapley.standard_errors[i, k]),
    }


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.3f}"
