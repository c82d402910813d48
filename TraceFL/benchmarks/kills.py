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
from itertools import count
from pathlib import Path
from typing import Any

ROUNDS = 3
KEYS = (
    *("model=densenet121", "dataset.image_size=32", "provenance.inputs=all", "resume=true", "run_name=run"),
    *("++model.config.block_config=[1,1,1,1]", "++model.config.growth_rate=4", "++model.config.num_init_features=8"),
    *("num_clients=5", "clients_per_round=3", f"num_rounds={ROUNDS}", "client.epochs=1", "dirichlet_alpha=1.0"),
    *("dataset.max_examples_per_client=64", "dataset.max_server_examples=60", "total_cpus=1", "store=all"),
)
PLACES = {"folder", "backend", "server_peak_memory_bytes"}  # keys of results.json
MOST_SECONDS = 60.0
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
# What a run ends with; a signal that comes before the run listens ends it as any program.
ENDS = {signal.SIGKILL: {-9}, signal.SIGTERM: {75, -15}, signal.SIGINT: {130, -2}}
# Words about a run, and of when and where it ran.
WORDS = {"run.log", "status.json", "report.html", "SHA256SUMS", "command.txt", "config.yaml", "rounds.png"}
PROCESSES = multiprocessing.get_context("forkserver")


def begin(folder: Path, backend: str) -> multiprocessing.process.BaseProcess:
    """Start a run in a process group of its own, and wait until it is."""
    (folder / "output").unlink(missing_ok=True)
    process = PROCESSES.Process(target=_run, args=([*KEYS, f"log_dir={folder}", f"backend={backend}"], folder))
    process.start()
    while not (folder / "output").exists() and process.exitcode is None:
        time.sleep(0.01)
    return process


def _run(words: list[str], folder: Path) -> None:
    os.setsid()
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
        if path.is_file() and path.name not in WORDS:
            found[str(path.relative_to(run))] = path.read_bytes()
            if path.suffix == ".json":
                found[str(path.relative_to(run))] = timeless(json.loads(path.read_text()))
    lines = [line.split(",") for line in found["rounds.csv"].decode().splitlines()]
    found["rounds.csv"] = [
        [c for c, name in zip(line, lines[0], strict=True) if "seconds" not in name] for line in lines
    ]
    return found


def fault_of(run: Path, number: signal.Signals, status: int | None) -> str | None:
    """Return what is wrong with how a run ended; None for nothing."""
    from tracefl.records.status import read_run_state

    if status is None:
        return f"still there after {MOST_SECONDS:.0f} s"
    state = read_run_state(run, ROUNDS).state
    if state == "done" if status == 0 else status in ENDS[number] and state in ("stopped", "to do"):
        return None
    return f"exit status {status}, and the run is {state}"


def main() -> None:
    """Disturb runs until there were enough kills and stops, and print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=100, help="all of them")
    parser.add_argument("--ray", type=int, default=20, help="of these on Ray")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    PROCESSES.set_forkserver_preload(["tracefl.jobs.preload"])
    draw = random.Random(options.seed)
    slowest: dict[tuple[str, ...], list[float]] = defaultdict(list)
    faults: dict[tuple[str, ...], list[str]] = defaultdict(list)
    resumed = same = 0
    with tempfile.TemporaryDirectory() as place:
        begin(Path(place), "in_process").join()  # once more: the first one also waits for the imports
        for backend, kills in (("in_process", options.kills - options.ray), ("ray", options.ray)):
            whole = Path(place) / backend
            whole.mkdir()
            began = time.monotonic()
            begin(whole, backend).join()
            seconds = time.monotonic() - began
            expected = deciding_files(whole / "default" / "run")
            numbers = count(1)
            while kills > 0:
                folder = Path(place) / f"{backend}-{next(numbers)}"
                folder.mkdir()
                run, disturbed = folder / "default" / "run", False
                while not (run / "results.json").exists():
                    process = begin(folder, backend)
                    process.join(draw.uniform(0, seconds) if kills > 0 else None)
                    if process.exitcode is not None:
                        continue
                    number, everyone = draw.choice(SIGNALS), draw.random() < 0.5
                    case = (backend, number.name, "group" if everyone else "process")
                    (os.killpg if everyone else os.kill)(process.pid or 0, number)
                    began, disturbed, kills = time.monotonic(), True, kills - 1
                    process.join(MOST_SECONDS)
                    slowest[case].append(time.monotonic() - began)
                    fault = fault_of(run, number, process.exitcode)
                    ended = process.exitcode, round(slowest[case][-1], 1), fault
                    sys.stderr.write(f"{folder.name} {' '.join(case)}: {ended}\n")
                    if fault is not None:
                        faults[case].append(fault)
                        process.kill()
                        process.join()
                if disturbed:
                    found = deciding_files(run)
                    differing = sorted(k for k in expected.keys() | found.keys() if expected.get(k) != found.get(k))
                    resumed, same = resumed + 1, same + (not differing)
                    sys.stderr.write(f"{folder.name} goes on to other files: {differing}\n")
    sys.stdout.write("| backend | signal | to the | times | ends within, s | wrong |\n|---|---|---|---|---|---|\n")
    for case, times in sorted(slowest.items()):
        wrong = "; ".join(faults[case]) or 0
        sys.stdout.write(f"| {' | '.join(case)} | {len(times)} | {max(times):.1f} | {wrong} |\n")
    sys.stdout.write(f"{resumed} runs were disturbed and resumed, {same} of them to identical files\n")


if __name__ == "__main__":
    main()
