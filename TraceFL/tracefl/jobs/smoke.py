"""Every run of a script in miniature, to prove that they all work before a cluster is booked.

A miniature spends most of its time importing libraries, so they are imported once, and each run is a process forked
from there, with its own memory, its own Ray and its own exit.
"""

import multiprocessing
import os
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from rich.console import Console

from tracefl.common.environment import cpus_here
from tracefl.common.paths import expand
from tracefl.jobs.execute import MOST_FAILED
from tracefl.jobs.miniature import data_root, miniature
from tracefl.jobs.plan import Plan
from tracefl.report.console import say

_MOST_AT_ONCE = 4
_MOST_SECONDS = 600.0  # a miniature that takes longer is hanging


@dataclass
class _Run:
    """A running miniature: its process, its output and its start time."""

    plan: Plan
    words: str
    process: ForkServerProcess
    output: Path
    began: float

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began


def smoke(name: str, plans: Sequence[Plan], extra: Sequence[str], console: Console) -> int:
    """Run everything in miniature, several runs at once, and print for each whether it worked.

    Args:
        name: The script's name, and the name of the folder below ``log_dir/smoke``, which is overwritten.
        plans: The runs.
        extra: Overrides that the user adds to every command; the miniature's own sizes win.
        console: Where to print.

    Returns:
        How many failed, at most 100.
    """
    root = data_root()
    logs = expand(plans[0].settings.log_dir) / "smoke" / name
    shutil.rmtree(logs, ignore_errors=True)
    logs.mkdir(parents=True)
    say(console, f"{len(plans)} runs in miniature, data: {root or 'DATA_ROOT is not set, so stand-ins'}, logs: {logs}")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tracefl.jobs.preload"])
    began, failed, waiting, going = time.monotonic(), 0, list(plans), list[_Run]()
    try:
        while waiting or going:
            while waiting and len(going) < min(_MOST_AT_ONCE, cpus_here()):
                going.append(_start(context, waiting.pop(0), extra, root, logs))
            connection.wait([run.process.sentinel for run in going], timeout=1.0)
            for run in [run for run in going if not run.process.is_alive() or run.seconds > _MOST_SECONDS]:
                going.remove(run)
                failed += not _judge(run, console)
    finally:
        for run in going:
            run.process.terminate()
    seconds = time.monotonic() - began
    say(
        console,
        f"{len(plans)} runs in miniature: {len(plans) - failed} worked, {failed} failed, in {seconds:.0f} s "
        f"({seconds / len(plans):.1f} s a run)",
    )
    return min(failed, MOST_FAILED)


def _start(
    context: multiprocessing.context.ForkServerContext, plan: Plan, extra: Sequence[str], root: Path | None, logs: Path
) -> _Run:
    small, words = miniature(plan.settings, root)
    own = logs / str(plan.job.index)  # two runs may be identical in miniature, where one data set stands in for another
    own.mkdir()
    arguments = plan.job.all_overrides([*extra, *small, f'log_dir="{own}"'])
    output = own / "output.txt"
    process = context.Process(target=_run, args=(arguments, str(output)))
    run = _Run(plan, words, process, output, time.monotonic())
    process.start()
    return run


def _run(arguments: list[str], output: str) -> None:
    """Run the command line in this process, with its output in a file."""
    with Path(output).open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    from tracefl.main import main

    sys.argv = ["tracefl", *arguments]
    status = 0
    try:
        main()
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)  # as the command line ends: without freeing object by object


def _judge(run: _Run, console: Console) -> bool:
    """Print how a run went; returns whether it worked."""
    problem = None
    if run.process.is_alive():
        run.process.kill()
        problem = f"killed after {run.seconds:.0f} s"
    run.process.join()
    if problem is None and run.process.exitcode != 0:
        lines = run.output.read_text(errors="replace").strip().splitlines() if run.output.exists() else []
        problem = lines[-1] if lines else f"exit status {run.process.exitcode}"
    say(
        console,
        f"{'ok    ' if problem is None else 'FAILED'} {run.seconds:5.1f} s  {run.plan.job.index:>2} "
        f"{run.plan.job.label}  [{run.words}]" + ("" if problem is None else f"\n       {problem}  (see {run.output})"),
    )
    return problem is None
