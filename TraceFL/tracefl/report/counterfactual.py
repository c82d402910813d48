"""A round without each of its clients, as rows of a CSV, as JSON, and as a table in the terminal."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from tracefl.common.bootstrap import FEWEST
from tracefl.common.words import percent
from tracefl.questions.counterfactual import GroundTruth, known
from tracefl.report.console import say_files, say_wrapped
from tracefl.report.terminal import interval_text, two_ends

CLIENTS_SHOWN = 20
_SHAPLEY = ("shapley", "shapley_standard_error")
COUNTERFACTUAL_COLUMNS = (
    *("round", "input_index", "label", "predicted", "centered_logit", "probability"),
    *("client", "weight", "faulty", "effect", "common_effect", "own_effect"),
    *("centered_logit_without", "probability_without", "predicted_without"),
    *_SHAPLEY,
)
"""One row per input and client. ``centered_logit``: the predicted class's logit less the mean of all, with all clients;
``effect``: by how much it falls without the client, in logits; ``common_effect``: the mean of that over the clients;
``own_effect``: the effect less it. ``weight``: the client's weight in the average.
``faulty`` is empty where no fault is known, ``effect`` and the ``without`` columns where the model gives no finite
logits without the client, ``shapley`` where it was not requested."""


def counterfactual_rows(truth: GroundTruth) -> Iterator[dict[str, Any]]:
    """Yield the rows of the CSV, by input and then by client."""
    for whole, clients in _inputs(truth):
        for client in clients:
            yield {"round": truth.server_round, **whole, **client}


def as_json(truth: GroundTruth) -> dict[str, Any]:
    """Return the whole answer in JSON's types; fractions 0 to 1, effects and Shapley values in logits, seconds."""
    shapley = truth.shapley
    return {
        "round": truth.server_round,
        "asked": truth.inputs,
        "nobody": int(truth.found.nobody.sum()),
        "chance_carried": int((truth.found.carried_by >= 0).sum()) / len(truth.found.client_ids),
        "common": truth.common(),
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
                **whole,
                "shapley_total": None if shapley is None else float(shapley.total[i]),
                "clients": clients,
            }
            for i, (whole, clients) in enumerate(_inputs(truth))
        ],
        "seconds": truth.seconds,
    }


def show(console: Console, truth: GroundTruth, name: str, csv: Path | None) -> None:
    """Print one line per client, and notes on what it is based on."""
    clients = {row["client"]: row for row in truth.clients()}
    shown, middle = two_ends(list(clients), CLIENTS_SHOWN)
    count = len(truth.input_indices)
    right = sum(a == b for a, b in zip(truth.labels, truth.found.predicted.tolist(), strict=True))
    say_wrapped(
        console,
        f"{name}, round {truth.server_round}: {count} inputs ({right} predicted right, {count - right} wrong), each of "
        f"{len(clients)} clients removed from the average",
    )
    console.print(_removals(truth, [clients[client_id] for client_id in shown], bool(middle)))
    if truth.shapley is not None:
        console.print(_shapley_values(truth, [clients[client_id] for client_id in shown]))
    for line in _notes(truth, clients, middle):
        say_wrapped(console, line)
    say_files(console, "every input and client", [csv or "csv=FILE or --json"])


def _removals(truth: GroundTruth, rows: Sequence[dict[str, Any]], is_cut: bool) -> Table:
    table = _table("client", "weight", "mean\neffect", "its\nown", "95 %\ninterval", "carries", "changed", "right")
    for place, row in enumerate(rows):
        table.add_row(
            f"{'*' if row['faulty'] else ''}{row['client']}",
            percent(row["weight"]),
            _signed(row["effect"]),
            _signed(row["own_effect"]),
            interval_text(row["own_effect_low"], row["own_effect_high"]) + ("?" if truth.is_few else ""),
            str(row["carried"]),
            *(str(row[name]) if row["measured"] else "-" for name in ("changed", "right")),
            end_section=is_cut and place == CLIENTS_SHOWN // 2 - 1,
        )
    return table


def _shapley_values(truth: GroundTruth, rows: Sequence[dict[str, Any]]) -> Table:
    assert truth.shapley is not None
    is_sampled = truth.shapley.permutations is not None
    table = _table("client", "mean\nShapley", "95 %\ninterval", *(["standard\nerror"] if is_sampled else []))
    for row in rows:
        table.add_row(
            f"{'*' if row['faulty'] else ''}{row['client']}",
            _signed(row["shapley"]),
            interval_text(row["shapley_low"], row["shapley_high"]) + ("?" if truth.is_few else ""),
            *([f"{row['shapley_standard_error']:.3f}"] if is_sampled else []),
        )
    return table


def _table(*headings: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _notes(truth: GroundTruth, clients: dict[str, dict[str, Any]], middle: int) -> Iterator[str]:
    """Yield what a reader of the table needs to know."""
    nobody = int(truth.found.nobody.sum())
    yield (
        "effect: by how much the predicted class's centered logit falls without the client; carries: predictions that "
        f"no other removal costs more (by chance {(len(truth.input_indices) - nobody) / len(clients):.1f})"
    )
    if nobody:
        yield f"nobody carries {nobody} of them: without any one client the model is as sure"
    common = truth.common()
    yield (
        f"all removals have {_signed(common['effect'])} in common, {interval_text(*list(common.values())[1:])}: an "
        "average of fewer models; its own: the effect less that, with a 95 % interval by a bootstrap over the inputs"
    )
    if truth.is_few:
        yield f"?: fewer than {FEWEST} inputs, so the order of the clients is not settled"
    yield "changed, right: predictions that are another class, and those that are right, without the client"
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
                "inputs: they do not count in its mean"
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


def _inputs(truth: GroundTruth) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Yield the values of each input, and those of each client for it."""
    found, shapley = truth.found, truth.shapley
    faulty = truth.faulty or (None,) * len(found.client_ids)
    tensors = {
        "effect": found.effects,
        "own_effect": found.own_effects,
        "centered_logit_without": found.centered_logits_without,
        "probability_without": found.probabilities_without,
        "predicted_without": found.predicted_without,
    }
    if shapley is not None:
        tensors |= dict(zip(_SHAPLEY, (shapley.values, shapley.standard_errors), strict=True))
    common = found.common_effects.tolist()
    columns = {name: values.tolist() for name, values in tensors.items()}  # each (B, K)
    for i, index in enumerate(truth.input_indices):
        clients = []
        for k, client_id in enumerate(found.client_ids):
            values = {name: known(column[i][k]) for name, column in columns.items()}
            if values["effect"] is None:
                values["predicted_without"] = None
            who = {"client": client_id, "weight": truth.client_weights[k], "faulty": faulty[k]}
            who["common_effect"] = None if values["effect"] is None else common[i]
            clients.append({**who, **dict.fromkeys(_SHAPLEY), **values})
        yield (
            {
                "input_index": index,
                "label": truth.labels[i],
                "predicted": int(found.predicted[i]),
                "centered_logit": float(found.centered_logits[i]),
                "probability": float(found.probabilities[i]),
            },
            clients,
        )


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.3f}"
