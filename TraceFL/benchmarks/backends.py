"""Seconds from command to prompt, and CPU seconds of the whole process tree: in this process, on Ray, and a plain loop.

    python benchmarks/backends.py --mnist DATA/mnist --dbpedia DATA/dbpedia_14

Three cases: the configuration of ``make run``; ResNet-18 on MNIST; 500 clients of 16 texts each, 20 a round, with a
small GPT. Four commands a case, in turn: ``plain`` is plain_loop.py, which prepares the same data, trains the same
clients in the same rounds and evaluates, and does nothing else; ``in_process`` and ``ray`` are the run without
provenance; ``in_process, traced`` is the run as configured. All train a client on one thread.

CPU seconds are those of every process that the command has started, Ray's daemons included: each inherits a variable,
by which it is found in /proc (Linux), and is looked at twenty times a second until it ends. Prints a Markdown table of
medians. All three cases take about ten minutes on two idle cores.
"""

import argparse
import json
import os
import re
import secrets
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from tracefl.records.naming import FIRST_RUN

HERE = Path(__file__).resolve().parent
MARK = "TRACEFL_BENCHMARK"
LOOKS_A_SECOND = 20
ENDING_SECONDS = 30.0  # longest wait for what a command has left running
IN_PROCESS = ("backend=in_process", "provenance=off")
WAYS = {
    "in_process": IN_PROCESS,
    "ray": ("backend=ray", "provenance=off"),
    "in_process, traced": ("backend=in_process",),
}
MNIST = ("model=resnet18", "dataset=mnist", "dataset.max_examples_per_client=512")
TEXTS = (
    *("model=gpt", "model.pretrained=false", "model.config.n_layer=2", "model.config.n_embd=64"),
    *("model.config.n_head=2", "dataset=dbpedia_14", "dataset.partition=iid", "dataset.min_examples_per_label=1"),
    *("dataset.max_examples_per_client=16", "num_clients=500", "clients_per_round=20", "num_rounds=6"),
    *("batch_size=4", "client.lr=0.001"),
)


@dataclass
class Taken:
    """What the runs of one command took.

    Attributes:
        seconds: From command to prompt.
        cpu_seconds: Of all its processes.
        accuracy: The last global model's, on the server's examples.
    """

    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    accuracy: float = float("nan")


def main() -> None:
    """Measure the cases and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mnist", help="folder with MNIST's parquet files")
    parser.add_argument("--dbpedia", help="folder with DBpedia's parquet files")
    parser.add_argument("--cases", nargs="+", choices=("run", "mnist", "texts"), default=["run", "mnist", "texts"])
    parser.add_argument("--repeats", type=int, help="runs of each command; 3, and 2 of MNIST's, where not given")
    options, keys = parser.parse_known_args()
    rows = []
    for case in options.cases:
        repeats = options.repeats or (2 if case == "mnist" else 3)
        took = measure_case([*case_keys(case, options), *keys], repeats)
        rows += table_rows(case, took, repeats)
    head = ("case", "way", "runs", "command to prompt, s", "CPU, s", "CPU / plain loop's", "accuracy")
    for row in (head, ["---"] * len(head), *rows):
        sys.stdout.write("| " + " | ".join(row) + " |\n")


def case_keys(case: str, options: argparse.Namespace) -> list[str]:
    """Return the overrides of a case."""
    if case == "run":
        return [FIRST_RUN]
    keys, path = (MNIST, options.mnist) if case == "mnist" else (TEXTS, options.dbpedia)
    if path is None:
        raise SystemExit(f"the case {case} needs --{'mnist' if case == 'mnist' else 'dbpedia'}")
    return [*keys, f"dataset.path={Path(path).resolve()}"]


def measure_case(keys: list[str], repeats: int) -> dict[str, Taken]:
    """Run every way of a case in turn, ``repeats`` times."""
    took = {way: Taken() for way in ("plain", *WAYS)}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(repeats):
            runs = [run(Path(folder), way, [*keys, *more], took[way]) for way, more in WAYS.items()]
            said = measure([sys.executable, str(HERE / "plain_loop.py"), str(runs[0])], took["plain"])
            took["plain"].accuracy = float(said.split()[-1])
    return took


def run(folder: Path, way: str, keys: list[str], taken: Taken) -> Path:
    """Make one run, note what it took, and return its folder."""
    name = re.sub(r"\W+", "-", way)
    where = [f"log_dir={folder}", "exp_key=default", f"run_name={name}", "overwrite=true"]
    measure([sys.executable, "-m", "tracefl", "run", *keys, *where], taken)
    made = folder / "default" / name
    taken.accuracy = json.loads((made / "results.json").read_text())["final"]["global_accuracy"]
    return made


def measure(command: list[str], taken: Taken) -> str:
    """Run a command, note its seconds and the CPU seconds of all its processes, and return its output."""
    mark = f"{MARK}={secrets.token_hex(8)}"
    variables = os.environ | dict([mark.split("=")])
    cpu: dict[tuple[int, int], float] = {}  # by number and start of the process
    others: set[int] = set()
    with tempfile.TemporaryFile("w+") as output:
        began = time.perf_counter()
        process = subprocess.Popen(command, env=variables, stdout=output, stderr=subprocess.STDOUT)
        while process.poll() is None:
            look(mark.encode(), cpu, others)
            time.sleep(1 / LOOKS_A_SECOND)
        seconds = time.perf_counter() - began
        while look(mark.encode(), cpu, others) and time.perf_counter() - began < seconds + ENDING_SECONDS:
            time.sleep(1 / LOOKS_A_SECOND)
        output.seek(0)
        said = output.read()
    if process.returncode:
        raise SystemExit(f"exit status {process.returncode}: {shlex.join(command)}\n{said}")
    taken.seconds.append(seconds)
    taken.cpu_seconds.append(sum(cpu.values()))
    took = f"{seconds:7.1f} s {taken.cpu_seconds[-1]:7.1f} CPU s  {len(cpu):3} processes"
    sys.stderr.write(f"{took}  {shlex.join(command)}\n")
    return said


def look(mark: bytes, cpu: dict[tuple[int, int], float], others: set[int]) -> int:
    """Note the CPU seconds so far of each process with the mark; returns how many there are.

    Args:
        mark: What their environment holds.
        cpu: The CPU seconds, by number and start of the process: kept up to date.
        others: Numbers of processes without the mark, which are not looked at again.
    """
    found = 0
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) in others:
            continue
        try:
            stat = (entry / "stat").read_text().rpartition(")")[2].split()  # from field 3 of proc(5) on
            process = int(entry.name), int(stat[19])
            # once found, always ours: Ray's workers write their title over their environment
            variables = mark if process in cpu else (entry / "environ").read_bytes()
        except OSError:  # it has ended, or is another user's
            continue
        if mark in variables:
            found += stat[0] != "Z"
            cpu[process] = (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")
        elif variables:  # a process that starts or ends has none for a moment
            others.add(int(entry.name))
    return found


def table_rows(case: str, took: dict[str, Taken], repeats: int) -> list[list[str]]:
    """Return a case's rows of the table."""
    plain = statistics.median(took["plain"].cpu_seconds)
    return [
        [
            case,
            way,
            str(repeats),
            f"{statistics.median(taken.seconds):.1f}",
            f"{statistics.median(taken.cpu_seconds):.1f}",
            f"{statistics.median(taken.cpu_seconds) / plain:.2f}",
            f"{taken.accuracy:.1%}",
        ]
        for way, taken in took.items()
    ]


if __name__ == "__main__":
    main()
