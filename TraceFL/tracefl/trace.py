"""Trace a stored round again: ``python -m tracefl.trace RUN_FOLDER [round=N] [provenance=PRESET] [baselines=CHOICE]``.

Or ask who is responsible for one prediction: ``python -m tracefl.trace RUN_FOLDER [round=N] image=FILE | text=WORDS |
input=INDEX [against=CLASS] [--json] [png=FILE]``. See why.py.

Reads only what the run left in its folder and needs neither Flower nor Ray. With the run's own settings it gives the
rows of the run's provenance.csv; with others it answers the same question differently on the same weights.
"""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from tracefl.common.text_files import write_atomically
from tracefl.conf.tool import run_tool
from tracefl.errors import ConfigError
from tracefl.questions.overrides import GROUPS, read_round, retrace
from tracefl.records.tables import PROVENANCE_COLUMNS, provenance_rows, to_csv
from tracefl.report.terminal import terminal_lines
from tracefl.report.trace import show
from tracefl.why import JSON, asks_why, explain_stored

USAGE = (
    "python -m tracefl.trace RUN_FOLDER [round=N] [csv=FILE] [provenance=PRESET] [provenance.KEY=VALUE ...] "
    "[baselines=CHOICE] [privacy.trace=deployed|before_noise]"
)


def main() -> None:
    """Trace one stored round and print it; bad input is one line and exit status 2."""
    run_tool(__doc__, USAGE, _main)


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
    show(console, server_round, trace)


if __name__ == "__main__":
    main()
