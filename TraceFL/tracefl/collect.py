"""Gather what runs found: ``python -m tracefl.collect FOLDER [csv=FILE] [markdown=FILE]``.

Every run below the folder becomes a row of one CSV (``FOLDER/collected.csv``), and every setting, over its seeds, a
line of a table, beside the published number of the same setting. Unfinished runs are named and are not in the table;
damaged ones are named and left out. Runs in miniature (``smoke/`` of the job scripts) are left out too.

Where runs looked for faulty clients, two more tables compare the rules: how often each finds one, and its seconds an
input; beside collected.csv then stand suspects_collected.csv (in full), seconds_per_input.png and .pdf, and where
runs differ in the share of flipped labels flipped_share.png. markdown=FILE writes the two tables for a README.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from tracefl.common.text_files import write_atomically
from tracefl.conf.tool import run_tool
from tracefl.errors import ConfigError, RecordError
from tracefl.paper.collected import settings_table
from tracefl.paper.gathered import gather_runs
from tracefl.paper.suspects_settings import Setting, suspects_settings
from tracefl.paper.suspects_table import SUSPECTS_COLUMNS, accuracy_grid, seconds_grid, seconds_per_input, suspects_rows
from tracefl.records.tables import to_csv
from tracefl.report.terminal import say

USAGE = "python -m tracefl.collect FOLDER [csv=FILE] [markdown=FILE]"


def main() -> None:
    """Collect and print; bad input is one line and exit status 2."""
    run_tool(
        __doc__,
        USAGE,
        lambda arguments: collect(
            console=Console(width=None if sys.stdout.isatty() else 200), **_read_arguments(arguments)
        ),
    )


def collect(root: Path, csv: Path, console: Console, markdown: Path | None = None) -> None:
    """Collect all runs below ``root`` into the file ``csv`` and print them.

    Args:
        root: Folder of the runs.
        csv: File of a row for each run; what the rules found of faulty clients is written beside it.
        console: Where to print.
        markdown: File for the rules' tables.

    Raises:
        RecordError: There is no run that can be read, or none for the rules' tables.
    """
    gathered = gather_runs(root)
    for problem in gathered.damaged:
        say(console, f"left out: {problem}")
    runs, done = gathered.runs, gathered.done
    write_atomically(csv, to_csv(tuple(runs[0].row), (run.row for run in runs)))
    if done:
        console.print(settings_table(done))
    suspects = suspects_settings(done)
    if suspects:
        _show_suspects(suspects, csv.parent, console, markdown)
    for line in gathered.unfinished_lines():
        say(console, line)
    counts = f"{len(gathered.unfinished)} unfinished, {len(gathered.damaged)} damaged"
    say(console, f"{len(done)} runs done, {counts}; all in {csv}")
    if markdown is not None and not suspects:
        raise RecordError(f"{root} holds no finished run that looked for faulty clients: {markdown} is not written")


def _show_suspects(settings: Sequence[Setting], folder: Path, console: Console, markdown: Path | None) -> None:
    """Print the rules side by side, and write them in full and as figures."""
    from tracefl.paper.suspects_figures import draw_seconds, draw_suspects  # matplotlib, only where it is needed

    grids = accuracy_grid(settings), seconds_grid(settings)
    for grid in grids:
        grid.print(console)
    written = [folder / "suspects_collected.csv"]
    write_atomically(written[0], to_csv(SUSPECTS_COLUMNS, suspects_rows(settings)))
    if markdown is not None:
        write_atomically(markdown, "\n".join(grid.markdown() for grid in grids))
        written.append(markdown)
    curve = folder / "flipped_share.png"
    written += [curve] * draw_suspects(settings, curve)
    written += draw_seconds(seconds_per_input(settings), folder / "seconds_per_input")
    say(console, f"the rules that look for faulty clients: {', '.join(map(str, written))}")


def _read_arguments(arguments: Sequence[str]) -> dict[str, Path]:
    """Return what ``collect`` is given, without its console."""
    folder, *options = arguments
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise ConfigError(f"{folder!r} is not a folder; give the runs' log_dir, such as logs/")
    given = {"root": root, "csv": root / "collected.csv"}
    for option in options:
        key, _, value = option.partition("=")
        if key not in ("csv", "markdown") or not value:
            raise ConfigError(f"unknown argument {option!r}; usage: {USAGE}")
        given[key] = Path(value).expanduser()
    return given


if __name__ == "__main__":
    main()
