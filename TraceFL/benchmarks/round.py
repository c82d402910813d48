"""What a federated round costs beyond its training: the harness against a plain PyTorch loop of the same steps.

    python TraceFL/benchmarks/round.py dataset=mnist dataset.path=DATA/mnist [more overrides]

The harness runs as a command of its own, on Ray and without provenance. Its seconds are from the sampling of the first
round's clients to the end of the last round, as its log says: training, messages, averaging, evaluation, storing. The
plain loop then takes the same clients in the same rounds, one after the other with all threads: Adam steps, the
average, an evaluation. In turn, several times; medians.
"""

import re
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

import torch
from hydra import compose, initialize_config_module
from plain_loop import train_rounds

from tracefl.common.environment import cpus_here
from tracefl.experiment.preparation import prepare_run
from tracefl.experiment.settings import read_settings

REPEATS = 3


def main() -> None:
    """Time both in turn and print their medians and the ratio."""
    overrides = [*sys.argv[1:], "provenance=off", "backend=ray"]
    with initialize_config_module("tracefl.conf", version_base="1.3"):
        settings = read_settings(compose("base", overrides))
    prepared = prepare_run(settings)
    torch.set_num_threads(cpus_here())
    seconds: dict[str, list[float]] = {"harness": [], "plain": []}
    for _ in range(REPEATS):
        taken, rounds = harness(overrides)
        seconds["harness"].append(taken)
        begin = time.perf_counter()
        train_rounds(settings, prepared, rounds)
        seconds["plain"].append(time.perf_counter() - begin)
    ratios = [a / b for a, b in zip(seconds["harness"], seconds["plain"], strict=True)]
    for way, values in seconds.items():
        sys.stdout.write(f"{way}: {statistics.median(values):.1f} s ({min(values):.1f} to {max(values):.1f})\n")
    sys.stdout.write(f"harness / plain: {statistics.median(ratios):.2f}\n")


def harness(overrides: list[str]) -> tuple[float, list[list[str]]]:
    """Run the command; return the seconds of all its rounds, and each round's clients."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "tracefl", "run", *overrides, f"log_dir={folder}", "run_name=run"]
        subprocess.run(command, check=True, capture_output=True)
        lines = (Path(folder) / "default" / "run" / "run.log").read_text().splitlines()
    sampled = [line for line in lines if "clients sampled: " in line]
    finished = [line for line in lines if re.search(r"round=\d+/\d+ accuracy=", line)]
    taken = (_time(finished[-1]) - _time(sampled[0])).total_seconds()
    return taken, [line.split("clients sampled: ")[1].split() for line in sampled]


def _time(line: str) -> datetime:
    return datetime.strptime(line[:23], "%Y-%m-%d %H:%M:%S,%f")


if __name__ == "__main__":
    sys.exit(main())
