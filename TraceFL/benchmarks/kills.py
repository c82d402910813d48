"""Kills and stops of a small run at random moments: how it ends, and whether it goes on to the same files.

    python benchmarks/kills.py [--kills 100] [--ray 20] [--seed 0]

A run is sent SIGKILL, SIGTERM or SIGINT, to its process or to its whole group, and started again with ``resume=true``
until it is complete. Then all of its files that decide an answer are compared with those of a run that nobody
disturbed. Processes are forked from one that has imported everything, so the moments lie in the run and not in imports.
"""

import argparse
import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from itertools import count
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

ROUNDS = 3
KEYS = (
    *("model=densenet121", "dataset.image_size=32", "provenance.inputs=all", "resume=true", "run_name=run"),
    *("++model.config.block_config=[1,1,1,1]", "++model.config.growth_rate=4", "++model.config.num_init_features=8"),
    *("num_clients=5", "clients_per_round=3", f"num_rounds={ROUNDS}", "client.epochs=1", "dirichlet_alpha=1.0"),
    *("dataset.max_examples_per_client=64", "dataset.max_server_examples=60", "total_cpus=2", "store=all"),
)
PLACES = {"folder", "backend", "server_peak_memory_bytes"}  # keys of results.json
MOST_SECONDS = 60.0
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
# What a run ends with; a signal that comes before the run listens ends it as any program.
ENDS = {signal.SIGKILL: {-9}, signal.SIGTERM: {75, -15}, signal.SIGINT: {130, -2}}
# Words about a run, and of when and where it ran.
WORDS = {"run.log", "status.json", "report.html", "SHA256SUMS", "command.txt", "config.yaml", "rounds.png"}
HELD = {".claim", ".work"}  # by a run that is killed after its last round; the next command that opens it deletes them
PROCESSES = multiprocessing.get_context("forkserver")


def begin(folder: Path, *keys: str, **variables: str) -> BaseProcess:
    """Start a run in a process group of its own, and wait until it is.

    Args:
        folder: Of its folder, ``default/run``.
        keys: Further keys.
        variables: Of its environment.
    """
    (folder / "output").unlink(missing_ok=True)
    process = PROCESSES.Process(target=_run, args=([*KEYS, f"log_dir={folder}", *keys], variables, folder))
    process.start()
    while not (folder / "output").exists() and process.exitcode is None:
        time.sleep(0.01)
    return process


def _run(words: list[str], variables: dict[str, str], folder: Path) -> None:
    os.setsid()
    os.environ.update(variables)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where this runs in a shell's background
    output = os.open(folder / "output", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    from tracefl.main import main

    sys.argv = ["tracefl", *words]
    status = 0
    try:
        main()
    except SystemExit as stop:
        status = int(stop.code or 0)
    os._exit(status)


def deciding_files(run: Path) -> dict[str, Any]:
    """Return what decides an answer, by file, without seconds and places."""

    def timeless(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: timeless(v) for k, v in value.items() if "seconds" not in k and k not in PLACES}
        return [timeless(each) for each in value] if isinstance(value, list) else value

    found: dict[str, Any] = {}
    for path in run.rglob("*"):
        if path.is_file() and path.name not in WORDS and HELD.isdisjoint(path.relative_to(run).parts):
            found[str(path.relative_to(run))] = path.read_bytes()
            if path.suffix == ".json":
                found[str(path.relative_to(run))] = timeless(json.loads(path.read_text()))
    lines = [line.split(",") for line in found["rounds.csv"].decode().splitlines()]
    found["rounds.csv"] = [
        [c for c, name in zip(line, lines[0], strict=True) if "seconds" not in name] for line in lines
    ]
    return found


def differing_files(run: Path, expected: dict[str, Any]) -> list[str]:
    """Return what decides an answer and is not as expected."""
    found = deciding_files(run)
    return sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))


def fault_of(run: Path, number: signal.Signals, status: int | None) -> str | None:
    """Return what is wrong with how a run ended; None for nothing."""
    from tracefl.records.status import read_run_state

    if status is None:
        return f"still there after {MOST_SECONDS:.0f} s"
    state = read_run_state(run, ROUNDS).state
    if (run / "results.json").exists():  # then nothing is lost any more, whatever ended the process
        right = state == "done" and status in {0, *ENDS[number]}
    else:
        right = state in ("stopped", "to do") and status in ENDS[number]
    if right:
        return None
    return f"exit status {status}, and the run is {state}"


class Kills:
    """Runs that are disturbed, and what became of them.

    Args:
        place: For their folders.
        seed: Of the moments and the signals.
    """

    def __init__(self, place: Path, seed: int) -> None:
        self._place, self._draw = place, random.Random(seed)
        self._ended: dict[tuple[str, ...], list[tuple[float, str | None]]] = defaultdict(list)
        self.resumed = self.same = 0

    def disturb(self, backend: str, kills: int) -> None:
        """Disturb runs on a backend until there were enough kills."""
        whole = self._place / backend
        whole.mkdir()
        began = time.monotonic()
        begin(whole, f"backend={backend}").join()
        seconds = time.monotonic() - began
        expected = deciding_files(whole / "default" / "run")
        for number in count(1):
            if kills <= 0:
                return
            folder = self._place / f"{backend}-{number}"
            folder.mkdir()
            run, disturbed = folder / "default" / "run", 0
            while not (run / "results.json").exists():
                process = begin(folder, f"backend={backend}")
                process.join(self._draw.uniform(0, seconds) if disturbed < kills else None)
                if process.exitcode is None:
                    self._kill(process, backend, run)
                    disturbed += 1
            kills -= disturbed
            if disturbed:
                differing = differing_files(run, expected)
                self.resumed, self.same = self.resumed + 1, self.same + (not differing)
                sys.stderr.write(f"{folder.name} goes on to other files: {differing}\n")

    def _kill(self, process: BaseProcess, backend: str, run: Path) -> None:
        number, everyone = self._draw.choice(SIGNALS), self._draw.random() < 0.5
        began = time.monotonic()
        (os.killpg if everyone else os.kill)(process.pid or 0, number)
        process.join(MOST_SECONDS)
        seconds, fault = time.monotonic() - began, fault_of(run, number, process.exitcode)
        case = (backend, number.name, "group" if everyone else "process")
        self._ended[case].append((seconds, fault))
        sys.stderr.write(f"{run.parent.parent.name} {' '.join(case)}: {process.exitcode} in {seconds:.1f} s, {fault}\n")
        if fault is not None:
            process.kill()
            process.join()

    def rows(self) -> Iterator[str]:
        """Yield a row in Markdown for each backend, signal and addressee."""
        for case, ended in sorted(self._ended.items()):
            wrong = "; ".join(fault for _, fault in ended if fault is not None) or 0
            yield f"| {' | '.join(case)} | {len(ended)} | {max(seconds for seconds, _ in ended):.1f} | {wrong} |"


def main() -> None:
    """Disturb runs until there were enough kills and stops, and print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=100, help="all of them")
    parser.add_argument("--ray", type=int, default=20, help="of these on Ray")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    PROCESSES.set_forkserver_preload(["tracefl.jobs.preload"])
    with tempfile.TemporaryDirectory() as place:
        begin(Path(place), "backend=in_process").join()  # once more: the first one also waits for the imports
        kills = Kills(Path(place), options.seed)
        kills.disturb("in_process", options.kills - options.ray)
        kills.disturb("ray", options.ray)
    sys.stdout.write("| backend | signal | to the | times | ends within, s | wrong |\n|---|---|---|---|---|---|\n")
    sys.stdout.write("\n".join((*kills.rows(), "")))
    sys.stdout.write(f"{kills.resumed} runs were disturbed and resumed, {kills.same} of them to identical files\n")


if __name__ == "__main__":
    main()
