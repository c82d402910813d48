"""All runs below a folder as one CSV and as tables over their seeds."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from tracefl.common.text_files import write_atomically
from tracefl.common.words import counted
from tracefl.errors import RecordError
from tracefl.paper.collected_run import settings_grid
from tracefl.paper.run_folders import gather_runs
from tracefl.paper.suspects_settings import Setting, suspects_settings
from tracefl.paper.suspects_table import SUSPECTS_COLUMNS, accuracy_grid, seconds_grid, seconds_per_input, suspects_rows
from tracefl.records.tables import to_csv
from tracefl.report.console import say


def summarize_runs(root: Path, csv: Path, console: Console, markdown: Path | None = None) -> dict[str, Any]:
    """Collect all runs below ``root`` into the file ``csv`` and print them.

    Args:
        root: Folder of the runs.
        csv: File with a row per run; what the rules found about faulty clients is written beside it.
        console: Where to print.
        markdown: File for the rules' tables; None to write none.

    Returns:
        The same in JSON's types: the rows of both files, what is unfinished or damaged, and the files.

    Raises:
        RecordError: No run can be read, or none looked for faulty clients and ``markdown`` is given.
    """
    gathered = gather_runs(root)
    for problem in gathered.damaged:
        say(console, f"left out: {problem}")
    runs, done = gathered.runs, gathered.done
    write_atomically(csv, to_csv(tuple(runs[0].row), (run.row for run in runs)))
    if done:
        settings_grid(done).print(console)
    suspects = suspects_settings(done)
    written = [csv, *(_show_suspects(suspects, csv.parent, console, markdown) if suspects else ())]
    for line in gathered.unfinished_lines():
        say(console, line)
    counts = f"{len(gathered.unfinished)} unfinished, {len(gathered.damaged)} damaged"
    say(console, f"{counted(len(done), 'run')} done, {counts}; all in {csv}")
    if markdown is not None and not suspects:
        raise RecordError(f"{root} holds no finished run that looked for faulty clients: {markdown} is not written")
    return {
        "folder": str(root),
        "runs": [dict(run.row) for run in runs],
        "suspects": [dict(row) for row in suspects_rows(suspects)],
        "damaged": list(gathered.damaged),
        "files": list(map(str, written)),
    }


def _show_suspects(settings: Sequence[Setting], folder: Path, console: Console, markdown: Path | None) -> list[Path]:
    """Print the rules side by side, and write them in full and as figures; return the files."""
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
    return written
