"""Trace a stored round again: ``python -m tracefl.trace RUN_FOLDER [round=N] [provenance=PRESET] [baselines=CHOICE]``.

Or ask who is responsible for one prediction: ``python -m tracefl.trace RUN_FOLDER [round=N] image=FILE | text=WORDS |
input=INDEX [against=CLASS] [--json] [png=FILE]``. See why.py.

Reads only what the run left in its folder and needs neither Flower nor Ray. With the run's own settings it gives the
rows of the run's provenance.csv; with others it answers the same question differently on the same weights.
"""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tracefl.cli import run_tool
from tracefl.config import NO_MISPREDICTIONS
from tracefl.errors import ConfigError
from tracefl.provenance import summarize
from tracefl.report.terminal import percent, suspects_table
from tracefl.run_log import terminal_lines
from tracefl.stored import GROUPS, StoredRun, read_round
from tracefl.suspects import mean_suspects
from tracefl.text_files import write_atomically
from tracefl.tracing import RoundTrace
from tracefl.tracking import PROVENANCE_COLUMNS, provenance_rows, to_csv
from tracefl.why import JSON, asks_why, explain_stored

USAGE = (
    "python -m tracefl.trace RUN_FOLDER [round=N] [csv=FILE] [provenance=PRESET] [provenance.KEY=VALUE ...] "
    "[baselines=CHOICE] [privacy.trace=deployed|before_noise]"
)


def main() -> None:
    """Trace one stored round and print it; bad input is one line and exit status 2."""
    run_tool(__doc__, USAGE, _main)


def retrace(folder: Path, server_round: int | None = None, overrides: Sequence[str] = ()) -> tuple[int, RoundTrace]:
    """Trace a stored round from a run's folder alone.

    Args:
        folder: The run's folder.
        server_round: The round; None for the last one that is stored.
        overrides: Of the groups provenance and baselines, and of privacy.trace, as on the command line.

    Returns:
        The round and its trace.

    Raises:
        RecordError: The folder is no run's, or the round is not stored.
        ConfigError: An override is illegal.
    """
    run = StoredRun(folder)
    tracer = run.tracer(overrides)
    model, record = run.round(server_round, overrides)
    if tracer.baselines and not tracer.mispredictions and any(o.startswith("baselines") for o in overrides):
        raise ConfigError(f"baselines.rules={list(tracer.baselines)} {NO_MISPREDICTIONS}")
    return record.server_round, tracer.trace(model, record, run.server)


def _main(arguments: Sequence[str]) -> None:
    folders = [a for a in arguments if a != JSON]
    if not folders:
        raise ConfigError(f"no run's folder is given; usage: {USAGE}")
    folder = Path(folders[0])
    arguments = [a for a in arguments if a is not folders[0]]
    if asks_why(arguments):
        explain_stored(folder, arguments)
        return
    server_round, csv, overrides = None, None, []
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key == "round":
            server_round = read_round(value)
        elif key == "csv" and value:
            csv = Path(value)
        elif value and (key in (*GROUPS, "privacy.trace") or key.partition(".")[0] in GROUPS):
            overrides.append(argument)
        else:
            raise ConfigError(f"unknown argument {argument!r}; usage: {USAGE}")
    console = Console()
    with terminal_lines(console):
        server_round, trace = retrace(folder, server_round, overrides)
    if csv is not None:
        write_atomically(csv, to_csv(PROVENANCE_COLUMNS, provenance_rows(server_round, trace.traced)))
    _show(console, server_round, trace)


def _show(console: Console, server_round: int, trace: RoundTrace) -> None:
    """Print the traced inputs, and how the attribution fared beside chance."""
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


if __name__ == "__main__":
    main()
