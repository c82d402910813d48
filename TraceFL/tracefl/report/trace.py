"""A traced round in the terminal."""

from rich.console import Console
from rich.table import Table

from tracefl.common.words import percent
from tracefl.provenance import summarize
from tracefl.questions.suspects import mean_suspects
from tracefl.questions.trace import RoundTrace
from tracefl.report.terminal import suspects_table


def show(console: Console, server_round: int, trace: RoundTrace) -> None:
    """Print the traced inputs, and how the attribution fared compared with chance."""
    table = Table(box=None, pad_edge=False)
    for heading in ("input", "label", "predicted", "client", "score", "right", "chance", "removal"):
        table.add_column(heading, justify="right")
    for t in trace.traced:
        table.add_row(
            str(t.input_index),
            str(t.label),
            str(t.predicted),
            t.traced_client,
            f"{t.score:.3f}",
            "-" if t.correct is None else "yes" if t.correct else "no",
            percent(t.chance),
            t.removal_client or "-",
        )
    console.print(table)
    if trace.suspects:
        console.print(suspects_table(mean_suspects(trace.suspects)))
    s = summarize(trace.traced)
    correlation = s.counterfactual_correlation
    console.print(
        f"round {server_round}: {s.inputs_traced} inputs, localization {percent(s.localization_accuracy)} "
        f"(chance {percent(s.chance_accuracy)}), top holder {percent(s.top_holder_accuracy)}, "
        f"removal agrees {percent(s.counterfactual_agreement)}, "
        f"rank correlation {'-' if correlation is None else f'{correlation:.3f}'}, "
        f"{trace.provenance_seconds:.2f} s",
        soft_wrap=True,
        highlight=False,
    )
