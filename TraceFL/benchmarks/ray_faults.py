"""Faults of Ray under a run: how it ends, what it says, and whether it goes on to the same files.

    python benchmarks/ray_faults.py

A small run on Ray meets each fault once, after its first round and while a client trains: one of Ray's processes, or a
worker, is killed or stands still, or Ray's monitor finds the node's memory full. Where the run ends for it, it is
started again with ``resume=true``. A Markdown table: seconds from the fault to the end, the exit status, the state that
status.json then has, what was said of the fault last, and how many files that decide an answer differ from those of a
run that nobody disturbed.
"""

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path

import psutil  # type: ignore[import-untyped]
from kills import PROCESSES, ROUNDS, begin, deciding_files, differing_files

from tracefl.records.status import read_run_state

MOST_SECONDS = 300.0
KEYS = ("strategy.timeout_seconds=60",)  # of a client that never answers
FAULTS = {
    f"{process} is sent {number.name}": (process, number)
    for process in ("gcs_server", "raylet", "ray::_Worker.answer")
    for number in (signal.SIGKILL, signal.SIGSTOP)
}
_MOST_SAID = 120  # characters
MEMORY = "the node's memory is full"


def named(process: BaseProcess, name: str) -> Iterator[psutil.Process]:
    """Yield the processes of a name below one; Linux cuts names to 15 characters."""
    for child in psutil.Process(process.pid).children(recursive=True):
        try:
            if child.name() == name[:15] or child.name() == name:
                yield child
        except psutil.NoSuchProcess:
            continue


def strike(process: BaseProcess, run: Path, name: str, number: signal.Signals) -> None:
    """Send a signal to a process of a run's Ray, once the first round is done and a client trains."""
    while not (run / "rounds" / "0001" / "round.json").exists() or not list(named(process, "ray::_Worker.answer")):
        if process.exitcode is not None:
            raise SystemExit(f"the run ended before the fault: {process.exitcode}")
        time.sleep(0.005)
    next(named(process, name)).send_signal(number)


def last_words(run: Path) -> str:
    """Return the last line of a run's log that is a warning or worse."""
    lines = [line for line in (run / "run.log").read_text().splitlines() if " WARNING " in line or " ERROR " in line]
    return lines[-1].split(": ", 1)[-1].replace("|", "/")[:_MOST_SAID] if lines else "nothing"


def row(place: Path, fault: str) -> str:
    """Return a fault's row, but for the comparison."""
    run = place / "default" / "run"
    if fault == MEMORY:
        process = begin(place, "backend=ray", *KEYS, RAY_memory_usage_threshold="0.01")
    else:
        process = begin(place, "backend=ray", *KEYS)
        strike(process, run, *FAULTS[fault])
    began = time.monotonic()
    process.join(MOST_SECONDS)
    seconds = time.monotonic() - began
    if process.exitcode is None:
        process.kill()
        process.join()
    state = read_run_state(run, ROUNDS).state
    return f"| {fault} | {seconds:.1f} | {process.exitcode} | {state} | {last_words(run)} |"


def main() -> None:
    """Run once with each fault, and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--faults", nargs="+", choices=(MEMORY, *FAULTS), metavar="FAULT", help="some of them")
    options = parser.parse_args()
    PROCESSES.set_forkserver_preload(["tracefl.jobs.preload"])
    with tempfile.TemporaryDirectory() as folder:
        places = {fault: Path(folder) / str(number) for number, fault in enumerate(("", MEMORY, *FAULTS))}
        for place in places.values():
            place.mkdir()
        begin(places[""], "backend=in_process", *KEYS).join()
        expected = deciding_files(places[""] / "default" / "run")
        sys.stdout.write("| fault | s | exit status | state | said | other files |\n|---|---|---|---|---|---|\n")
        for fault in options.faults or (MEMORY, *FAULTS):
            line = row(places[fault], fault)
            run = places[fault] / "default" / "run"
            if not (run / "results.json").exists():
                begin(places[fault], "backend=in_process", *KEYS).join()
            differing = differing_files(run, expected)
            sys.stdout.write(f"{line} {len(differing)} |\n")
            if differing:
                sys.stderr.write(f"{fault}: {' '.join(differing)}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
