"""What a federated round costs beyond its training: the harness against a plain PyTorch loop of the same steps.

    python TraceFL/benchmarks/round.py dataset=mnist dataset.path=DATA/mnist [more overrides]

The harness runs as a command of its own, without provenance. Its seconds are from the sampling of the first round's
clients to the end of the last round, as its log says: training, messages, averaging, evaluation, storing. The plain
loop then takes the same clients in the same rounds, one after the other with all threads: Adam steps, the average, an
evaluation. In turn, several times; medians.
"""

import copy
import re
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

import torch
import torch.nn.functional as F
from hydra import compose, initialize_config_module
from torch import Tensor, nn

from tracefl.common.environment import cpus_here
from tracefl.common.seeds import derive_seed
from tracefl.experiment.preparation import Prepared, prepare_run
from tracefl.experiment.settings import read_settings
from tracefl.learning.examples import Examples
from tracefl.learning.models import initial_model
from tracefl.records.settings import Settings

REPEATS = 3


def main() -> None:
    """Time both in turn and print their medians and the ratio."""
    overrides = [*sys.argv[1:], "provenance=off"]
    with initialize_config_module("tracefl.conf", version_base="1.3"):
        settings = read_settings(compose("base", overrides))
    prepared = prepare_run(settings)
    seconds: dict[str, list[float]] = {"harness": [], "plain": []}
    for _ in range(REPEATS):
        taken, rounds = harness(overrides)
        seconds["harness"].append(taken)
        begin = time.perf_counter()
        plain_loop(settings, prepared, rounds)
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


def plain_loop(settings: Settings, prepared: Prepared, rounds: list[list[str]]) -> None:
    """Train every round's clients one after the other, average them, evaluate the average."""
    torch.set_num_threads(cpus_here())
    average = initial_model(settings.model, prepared.spec, derive_seed(settings.seed, "model"))
    for clients in rounds:
        total: dict[str, Tensor] = {}
        num_examples = sum(len(prepared.data.clients[k]) for k in clients)
        for client_id in clients:
            examples = prepared.data.clients[client_id]
            model = copy.deepcopy(average)
            _train(model, examples, settings)
            for name, tensor in model.state_dict().items():
                total[name] = total.get(name, 0) + tensor.double() * (len(examples) / num_examples)
        average.load_state_dict(total)
        _evaluate(average, prepared.data.server)


def _train(model: nn.Module, examples: Examples, settings: Settings) -> None:
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), lr=settings.training.lr, fused=True)
    for _ in range(settings.training.epochs):
        for index in torch.randperm(len(examples)).split(settings.training.batch_size):
            if len(index) > 1:
                inputs, labels = examples.batch(index)
                optimizer.zero_grad()
                F.cross_entropy(model(inputs), labels).backward()
                optimizer.step()


@torch.no_grad()
def _evaluate(model: nn.Module, examples: Examples) -> float:
    model.eval()
    batches = torch.arange(len(examples)).split(256)
    right = sum((model(inputs).argmax(dim=1) == labels).sum() for inputs, labels in map(examples.batch, batches))
    return float(right) / len(examples)


def _time(line: str) -> datetime:
    return datetime.strptime(line[:23], "%Y-%m-%d %H:%M:%S,%f")


if __name__ == "__main__":
    sys.exit(main())
