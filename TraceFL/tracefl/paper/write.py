"""Writes the paper's figures and tables, and their numbers as CSV."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from tracefl.common.text_files import write_atomically
from tracefl.common.words import counted
from tracefl.errors import RecordError
from tracefl.paper.classes import CLASS_COLUMNS, class_rows, draw_classes, read_classes
from tracefl.paper.collected_run import CollectedRun
from tracefl.paper.curves import CURVE_COLUMNS, curve_rows, figure_pages
from tracefl.paper.exhibits import Exhibit, missing_lines, usable_runs
from tracefl.paper.figures import draw_page
from tracefl.paper.grid_points import GridPoint
from tracefl.paper.published import published_seconds
from tracefl.paper.run_folders import gather_runs
from tracefl.paper.suspects_figures import draw_seconds
from tracefl.paper.suspects_settings import suspects_settings
from tracefl.paper.suspects_table import seconds_per_input
from tracefl.paper.tables import RULES, make_table
from tracefl.records.tables import to_csv
from tracefl.report.console import say


def write_exhibits(
    exhibits: Sequence[Exhibit], root: Path, own: bool, needed: bool, out: Path, console: Console
) -> dict[str, Any]:
    """Write figures and tables of the runs below a folder, and print what is missing.

    Args:
        exhibits: The figures and tables.
        root: Folder of the runs.
        own: Use only the runs of a figure's own experiments, by their ``exp_key``.
        needed: Every exhibit must have a run; otherwise at least one of them must.
        out: Folder to write to.
        console: Where to print.

    Returns:
        The same in JSON's types: each exhibit with its number of runs, its files, and the paper's settings that it has
        no run of; and the runs that were left out, one line each.

    Raises:
        RecordError: A needed run is missing, and nothing is written; or an exhibit's runs are damaged, and only the
            others are written.
    """
    gathered = gather_runs(root)
    unused = [*gathered.damaged, *gathered.unfinished_lines()]
    for line in unused:
        say(console, f"left out: {line}")
    chosen: list[tuple[Exhibit, list[CollectedRun]]] = []
    without: list[str] = []
    for exhibit in exhibits:
        runs, left_out = usable_runs(exhibit, [run for run in gathered.done if not own or exhibit.has(run)])
        unused += left_out
        for line in left_out:
            say(console, f"left out of {exhibit.kind} {exhibit.number}: {line}")
        if runs:
            chosen.append((exhibit, runs))
        elif needed:
            raise RecordError(_no_run(exhibit, root, own))
        else:
            without.append(_no_run(exhibit, root, own))
    if not chosen:
        raise RecordError(
            f"{root} holds no complete run of any figure or table: tracefl jobs lists the runs that they are made of; "
            "name another experiment with exp=NAME"
        )
    for line in without:
        say(console, line)
    out.mkdir(parents=True, exist_ok=True)
    problems = []
    made: list[dict[str, Any]] = []
    for exhibit, runs in chosen:
        try:
            missing = exhibit.missing(runs)
            files = write_exhibit(exhibit, runs, missing, out, console)
        except RecordError as error:  # the others are made all the same
            problems.append(f"{exhibit.kind} {exhibit.number}: {error}")
            continue
        say(console, f"{exhibit.kind} {exhibit.number}: {counted(len(runs), 'run')}; {', '.join(map(str, files))}")
        lines = list(missing_lines(exhibit, missing))
        made.append({"name": exhibit.name, "runs": len(runs), "files": list(map(str, files)), "missing": lines})
        if missing:
            of_paper = f"no run for {len(missing)} of the paper's {len(exhibit.grid)}:"
            say(console, f"{exhibit.kind} {exhibit.number}: {of_paper}")
            for line in lines:
                say(console, f"    {line}")
    if problems:
        raise RecordError("; ".join(problems))
    return {"folder": str(root), "exhibits": made, "left_out": unused}


def write_exhibit(
    exhibit: Exhibit, runs: Sequence[CollectedRun], missing: Sequence[GridPoint], out: Path, console: Console
) -> list[Path]:
    """Write a figure or a table.

    Args:
        exhibit: The figure or table.
        runs: Usable runs, at least one.
        missing: The paper's grid points without a run.
        out: Folder to write to.
        console: Where to print a table.

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


def _no_run(exhibit: Exhibit, root: Path, own: bool) -> str:
    which = f" of {' or '.join(exhibit.keys)}" if own else ""
    return (
        f"{exhibit.kind} {exhibit.number}: {root} holds no complete run{which} for it, and it is not made; "
        "give the folder of the runs, or their experiment with exp=NAME"
    )


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
