"""The paper's figures and tables from one's own runs: ``python visualize_results.py --exp exp_1 --figure 2``.

    --figure N     2, 3, 4, 5 or 6: a picture as PNG and PDF, and what it draws as CSV; may be given more than once.
                   Figure 2 is over the rounds, a file for each alpha; Figure 5 has a second one over the classes
    --table N      1, 2 or 3: as CSV, Markdown and LaTeX
    --all          all of them
    --exp NAME     the runs of RUNS/NAME, whatever they are; without: those of the figure's own experiments
    --runs FOLDER  where the runs are: results/ of the Flower app (the default), logs/ of the job scripts, ...
    --out FOLDER   where to write (default: RUNS/figures)

Beside localization accuracy stands its chance level, and beside a setting of the paper its published numbers. Only
complete runs count: the others are named, and so is every setting of the paper's that has no run.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console

from tracefl.conf.tool import run_tool
from tracefl.errors import ConfigError, RecordError
from tracefl.paper.collected import CollectedRun
from tracefl.paper.exhibits import EXHIBITS, Exhibit, missing_lines, usable_runs
from tracefl.paper.gathered import gather_runs
from tracefl.report.terminal import say

USAGE = "python visualize_results.py [--exp NAME] [--figure N] [--table N] [--all] [--runs FOLDER] [--out FOLDER]"


def main() -> None:
    """Draw; bad input is one line and exit status 2."""
    run_tool(
        __doc__,
        USAGE,
        lambda arguments: visualize(
            **_read_arguments(arguments), console=Console(width=None if sys.stdout.isatty() else 200)
        ),
    )


def visualize(exhibits: Sequence[Exhibit], root: Path, own: bool, needed: bool, out: Path, console: Console) -> None:
    """Make figures and tables of the runs below a folder, and say what is missing.

    Args:
        exhibits: What to make.
        root: Folder of the runs.
        own: Take the runs of a figure's own experiments alone, by their ``exp_key``.
        needed: Each of them must have a run; else one of them must.
        out: Folder to write to.
        console: Where to say it.

    Raises:
        RecordError: There is no run for it, and nothing is written; or runs are damaged, and the others are made.
    """
    gathered = gather_runs(root)
    for problem in gathered.damaged:
        say(console, f"left out: {problem}")
    for line in gathered.unfinished_lines():
        say(console, f"left out: {line}")
    chosen: list[tuple[Exhibit, list[CollectedRun]]] = []
    for exhibit in exhibits:
        runs, left_out = usable_runs(exhibit, [run for run in gathered.done if not own or exhibit.has(run)])
        for line in left_out:
            say(console, f"left out of {exhibit.kind} {exhibit.number}: {line}")
        if runs:
            chosen.append((exhibit, runs))
        elif needed:
            raise RecordError(_no_run(exhibit, root, own))
        else:
            say(console, _no_run(exhibit, root, own))
    if not chosen:
        raise RecordError(f"{root} holds no complete run of any figure or table; name its experiment with --exp")
    out.mkdir(parents=True, exist_ok=True)
    problems = []
    for exhibit, runs in chosen:
        try:
            _make(exhibit, runs, out, console)
        except RecordError as error:  # the others are made all the same
            problems.append(f"{exhibit.kind} {exhibit.number}: {error}")
    if problems:
        raise RecordError("; ".join(problems))


def _make(exhibit: Exhibit, runs: Sequence[CollectedRun], out: Path, console: Console) -> None:
    from tracefl.paper.write import write_exhibit  # matplotlib, only where it is needed

    missing = exhibit.missing(runs)
    files = write_exhibit(exhibit, runs, missing, out, console)
    say(console, f"{exhibit.kind} {exhibit.number}: {len(runs)} runs; {', '.join(map(str, files))}")
    if missing:
        say(console, f"{exhibit.kind} {exhibit.number}: no run for {len(missing)} of the paper's {len(exhibit.grid)}:")
        for line in missing_lines(exhibit, missing):
            say(console, f"    {line}")


def _no_run(exhibit: Exhibit, root: Path, own: bool) -> str:
    which = f" of {' or '.join(exhibit.keys)}" if own else ""
    return (
        f"{exhibit.kind} {exhibit.number}: {root} holds no complete run{which} for it, and it is not made; "
        "give the runs' folder with --runs, their experiment with --exp"
    )


def _read_arguments(arguments: Sequence[str]) -> dict[str, Any]:
    """Return what ``visualize`` is given, without its console."""
    parser = _Parser(add_help=False, allow_abbrev=False)
    for kind in ("figure", "table"):
        numbers = [exhibit.number for exhibit in EXHIBITS.values() if exhibit.kind == kind]
        parser.add_argument(f"--{kind}", action="append", type=int, choices=numbers, default=[])
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--exp")
    parser.add_argument("--runs", default="results")
    parser.add_argument("--out")
    given = parser.parse_args(arguments)
    runs = Path(given.runs).expanduser()
    root = runs / given.exp if given.exp else runs
    names = [*(f"figure{number}" for number in given.figure), *(f"table{number}" for number in given.table)]
    if given.all and (names or given.exp):
        raise ConfigError("--all makes every figure and table of its own runs; leave out --exp, --figure and --table")
    if not names and not given.all:
        names = [name for name, exhibit in EXHIBITS.items() if given.exp in exhibit.keys]
    if not names and not given.all:
        raise ConfigError("nothing to make is named; give --figure N, --table N or --all")
    if not root.is_dir():
        raise ConfigError(f"{str(root)!r} is not a folder; give the runs' with --runs, such as results/ or logs/")
    return {
        "exhibits": [EXHIBITS[name] for name in dict.fromkeys(names or EXHIBITS)],
        "root": root,
        "own": not given.exp,
        "needed": not given.all,
        "out": Path(given.out).expanduser() if given.out else runs / "figures",
    }


class _Parser(argparse.ArgumentParser):
    """Raises where argparse would end the process."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; usage: {USAGE}")


if __name__ == "__main__":
    main()
