"""A traced round in the terminal, and as JSON."""

from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from tracefl.common.words import percent
from tracefl.provenance import summarize
from tracefl.questions.suspects import mean_suspects
from tracefl.questions.trace import RoundTrace
from tracefl.records.result import are_exact
from tracefl.records.tables import NOBODY
from tracefl.report.console import say_wrapped
from tracefl.report.terminal import suspects_table

_CARRIED = "carried by: whose exact removal costs the prediction most, else whose contribution is highest"
_FIRST = "first: the highest contribution, which localization scores"
_SUSPECTED = (
    "suspected: who pushes the server's inputs of the class most towards the predicted one, which localization scores, "
    "and by how many standard deviations over the clients"
)


def as_json(server_round: int, trace: RoundTrace) -> dict[str, Any]:
    """Return a traced round in JSON's types, as in its round.json: its inputs, their means, and the rules' rows.

    ``responsible`` of an input is null where nobody carries it.
    """
    return {
        "round": server_round,
        "inputs": [{**asdict(traced), "responsible": traced.responsible} for traced in trace.traced],
        "mean": asdict(summarize(trace.traced)),
        "suspects": [dict(row) for row in trace.suspects],
        "provenance_seconds": trace.provenance_seconds,
        "counterfactual_seconds": trace.counterfactual_seconds,
    }


def show(console: Console, server_round: int, trace: RoundTrace) -> None:
    """Print the traced inputs, and how the attribution fared compared with chance."""
    is_exact = are_exact(trace.traced)
    values = ("exact contri-\nbution",) if is_exact else ("contri-\nbution", "exact\neffect")  # the same, if exact
    table = Table(box=None, pad_edge=False)
    suspects = any(t.suspicions for t in trace.traced)
    first = ("sus-\npected", "by") if suspects else ("first",)
    for heading in ("input", "label", "predicted", "carried\nby", *values, *first, "local-\nized", "chance"):
        table.add_column(heading, justify="right")
    for t in trace.traced:
        client = t.responsible or t.by_effect[0]
        table.add_row(
            str(t.input_index),
            str(t.label),
            str(t.predicted),
            t.responsible or NOBODY,
            f"{dict(t.contributions)[client]:+.3f}",
            *([] if is_exact else [f"{t.exact_effects[client]:+.3f}" if client in t.exact_effects else "-"]),
            t.traced_client,
            *([f"{t.suspicions[0][1]:.1f}" if t.suspicions else "-"] if suspects else []),
            "-" if t.localized is None else "yes" if t.localized else "no",
            percent(t.chance),
        )
    if not trace.traced:
        why = next((row["note"] for row in trace.suspects if row["note"]), "no input was chosen")
        say_wrapped(console, f"round {server_round}: no prediction is traced: {why}")
        return
    console.print(table)
    whose = "exact contribution is" if is_exact else "contribution and exact effect are"
    say_wrapped(console, f"{_CARRIED}; {whose} that client's, in logits; {_SUSPECTED if suspects else _FIRST}")
    if trace.suspects:
        console.print(suspects_table(mean_suspects(trace.suspects)))
    s = summarize(trace.traced)
    correlation = s.counterfactual_correlation
    say_wrapped(
        console,
        f"round {server_round}: {s.inputs_traced} inputs, localization {percent(s.localization_accuracy)} "
        f"(chance {percent(s.chance_accuracy)}), top holder {percent(s.top_holder_accuracy)}, "
        f"counterfactual agreement {percent(s.counterfactual_agreement)}, "
        f"nobody carries {percent(s.nobody_fraction)}, "
        f"correlation {'-' if correlation is None else f'{correlation:.3f}'}, "
        f"{trace.provenance_seconds:.2f} s",
    )
