"""The table at the end of a sweep: one row a run, by what varies."""

from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.table import Table
from rich.text import Text

from tracefl.common.words import duration, percent
from tracefl.errors import Failure, TraceFLError, one_line
from tracefl.records.reading import read_results
from tracefl.report.console import WIDE, table_console


def show_sweep(varied: Sequence[Sequence[str]], outcomes: Sequence[Failure | Path]) -> None:
    """Print the table.

    Args:
        varied: Each run's overrides that not all runs share, as ``key=value``; those of runs that did not begin too.
        outcomes: The folders of the runs, in the same order, or what stopped them.
    """
    table_console(WIDE).print(sweep_table(varied, outcomes))


def sweep_table(varied: Sequence[Sequence[str]], outcomes: Sequence[Failure | Path]) -> Table:
    """Return the table; its arguments are those of ``show_sweep``."""
    keys = list(dict.fromkeys(override.partition("=")[0] for run in varied for override in run))
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in ("run", *keys, "accuracy", "localization\n(chance)", "time"):
        table.add_column(Text(heading), justify="right")  # a value such as [fc] is no markup
    table.add_column("folder, or what stopped it", overflow="fold")
    for number, (run, outcome) in enumerate(zip(varied, outcomes, strict=False), 1):
        values = dict(override.split("=", 1) for override in run)
        cells = (str(number), *(values.get(key, "") for key in keys), *_measured(outcome), _end(outcome))
        table.add_row(*map(Text, cells))
    return table


def _measured(outcome: Failure | Path) -> tuple[str, str, str]:
    """Return the last round's accuracy and localization, and the seconds of the whole run."""
    if isinstance(outcome, Failure):
        return "-", "-", "-"
    try:
        results = read_results(outcome)
    except TraceFLError as error:  # the table is printed while another error may be on its way
        return "-", "-", one_line(error)
    final = results["final"]
    localization, chance = final["localization_accuracy"], final["chance_accuracy"]
    scored = "-" if localization is None else f"{percent(localization)} ({percent(chance)})"
    return percent(final["global_accuracy"]), scored, duration(results["seconds"])


def _end(outcome: Failure | Path) -> str:
    return outcome.message if isinstance(outcome, Failure) else str(outcome)
