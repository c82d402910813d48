"""Writes a figure or a table of the paper, and what is in it as CSV."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from tracefl.common.text_files import write_atomically
from tracefl.errors import RecordError
from tracefl.paper.classes import CLASS_COLUMNS, class_rows, draw_classes, read_classes
from tracefl.paper.collected import CollectedRun
from tracefl.paper.curves import CURVE_COLUMNS, curve_rows, figure_pages
from tracefl.paper.exhibits import Exhibit, missing_lines
from tracefl.paper.figures import draw_page
from tracefl.paper.grid_points import GridPoint
from tracefl.paper.published import published_seconds
from tracefl.paper.suspects_figures import draw_seconds
from tracefl.paper.suspects_settings import suspects_settings
from tracefl.paper.suspects_table import seconds_per_input
from tracefl.paper.tables import RULES, make_table
from tracefl.records.tables import to_csv
from tracefl.report.terminal import say


def write_exhibit(
    exhibit: Exhibit, runs: Sequence[CollectedRun], missing: Sequence[GridPoint], out: Path, console: Console
) -> list[Path]:
    """Write a figure or a table.

    Args:
        exhibit: What.
        runs: Usable ones, one or more.
        missing: Places of the paper's grid without a run.
        out: Folder of the files.
        console: Where a table is printed too.

    Returns:
        The files.
    """
    path = out / exhibit.name
    if exhibit.kind == "table":
        return _write_table(exhibit, runs, missing, path, console)
    if exhibit.of_faults:
        return _write_seconds(exhibit, runs, missing, path)
    pages = figure_pages(exhibit, runs)
    every = [panel for page in pages.values() for panel in page]
    classes = {panel.words: read_classes(panel.runs) for panel in every if exhibit.of_classes}
    written: list[Path] = []
    for words, panels in pages.items():
        name = f"{exhibit.name}-{words.replace(' ', '')}" if len(pages) > 1 else exhibit.name
        written += draw_page(exhibit, words, panels, missing, path.with_name(name))
    csv = path.with_name(f"{path.name}.csv")
    write_atomically(csv, to_csv(CURVE_COLUMNS, curve_rows(exhibit, every, missing)))
    written.append(csv)
    if classes:
        csv = path.with_name(f"{path.name}-classes.csv")
        written += [*draw_classes(classes, csv.with_suffix("")), csv]
        write_atomically(csv, to_csv(CLASS_COLUMNS, class_rows(classes)))
    return written


def _write_table(
    exhibit: Exhibit, runs: Sequence[CollectedRun], missing: Sequence[GridPoint], path: Path, console: Console
) -> list[Path]:
    grid, columns, rows = make_table(exhibit, runs, missing)
    say(console, f"{exhibit.kind} {exhibit.number}: {exhibit.title}")
    grid.print(console)
    texts = {"csv": to_csv(columns, rows), "md": grid.markdown(), "tex": grid.latex(exhibit.title, exhibit.name)}
    written = []
    for kind, text in texts.items():
        written.append(path.with_name(f"{path.name}.{kind}"))
        write_atomically(written[-1], text)
    return written


def _write_seconds(
    exhibit: Exhibit, runs: Sequence[CollectedRun], missing: Sequence[GridPoint], path: Path
) -> list[Path]:
    seconds = {
        label: {rule: value for rule, value in row.items() if rule in RULES}
        for label, row in seconds_per_input(suspects_settings(runs)).items()
    }
    note = f"no run: {len(missing)} of the paper's {len(exhibit.grid)} settings" if missing else ""
    written = draw_seconds(seconds, path, note)
    if not written:
        raise RecordError(f"{exhibit.kind} {exhibit.number}: no run had a misprediction to trace, so none was timed")
    theirs = published_seconds()
    rows = [
        {
            **{"model_and_data": label, "rule": rule, "seconds_per_input": value},
            "published_mean_seconds_per_input": theirs[rule].mean if rule in theirs else None,
        }
        for label, row in seconds.items()
        for rule, value in row.items()
    ]
    columns = tuple(rows[0])
    rows += [{columns[0]: f"no run: {line}"} for line in missing_lines(exhibit, missing)]
    written.append(path.with_name(f"{path.name}.csv"))
    write_atomically(written[-1], to_csv(columns, rows))
    return written
