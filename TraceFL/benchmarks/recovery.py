"""Whether a run gets over a faulty client: without mitigation, with the client excluded, and with less weight for it.

    python TraceFL/benchmarks/recovery.py DATA 1 2 3 [--models resnet18 gpt] [--log-dir logs] [KEYS]

Runs, two at once, resnet18 on MNIST (DATA/mnist) and a small GPT on DBpedia (DATA/dbpedia_14) with the given seeds:
with and without a client that flips all its labels to one class, with mitigate=none and mitigate=exclude, and with the
fault and mitigate=downweight. Other keys are passed on. What is complete in log_dir/recovery is not run again.

Prints, of each: the global accuracy after the last round and its mean over the last five rounds, each with its
difference to the run of the same seed that never had the fault; in how many runs the faulty client and honest ones were
hit, and from which round on. Mean and standard deviation over seeds, accuracies in percent.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from selection import words

from tracefl.conf.constraints import choice_name
from tracefl.conf.run_names import run_folders
from tracefl.errors import RecordError
from tracefl.paper.rule_findings import over_seeds
from tracefl.records.settings import read_config
from tracefl.records.store import RoundStore

EVERY = (
    "launcher=joblib",
    "exp_key=recovery",
    "provenance.counterfactual=false",
    "store=none",
    "model.pretrained=false",
    "num_clients=10",
    "clients_per_round=4",
    "num_rounds=16",
    "client.epochs=1",
    "dirichlet_alpha=5.0",
)
MODELS = {
    "resnet18": (
        "model=resnet18",
        "dataset=mnist",
        "dataset.path={data}/mnist",
        "dataset.image_size=16",
        "dataset.max_examples_per_client=400",
        "client.lr=0.0005",
        "batch_size=16",
    ),
    "gpt": (
        "model=gpt",
        "model.config.n_layer=2",
        "model.config.n_embd=128",
        "model.config.n_head=4",
        "client.lr=0.002",
        "dataset=dbpedia_14",
        "dataset.path={data}/dbpedia_14",
        "dataset.max_tokens=48",
        "dataset.max_examples_per_client=600",
    ),
}
SWEEPS = (("fault=none,label_flip", "mitigate=none,exclude"), ("fault=label_flip", "mitigate=downweight"))
HEALTHY = ("none", "none")
ORDER = ("none", "exclude", "downweight")
LAST = 5
"""Rounds at the end over which the accuracy is averaged beside that of the last one."""


@dataclass(frozen=True)
class Run:
    """A finished run: its accuracies as fractions, and what mitigation did (None without)."""

    last: float
    late: float
    mitigation: dict[str, Any] | None


def main() -> None:
    """Run what is not there yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with mnist and dbpedia_14")
    parser.add_argument("seeds", type=int, nargs="+")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--log-dir", type=Path, default=Path("logs"))
    options, keys = parser.parse_known_args()
    columns = ("model", "fault", "mitigate", "seeds", "last round", "difference", f"last {LAST}", "difference")
    columns = (*columns, "faulty hit", "from round", "honest hit")
    lines = [columns, tuple("---" if name in columns[:3] else "---:" for name in columns)]
    for model in options.models:
        own = [f"log_dir={options.log_dir}", *(key.format(data=options.data.resolve()) for key in MODELS[model]), *keys]
        for sweep in SWEEPS:
            seeds = f"seed={','.join(map(str, options.seeds))}"
            command = [sys.executable, "-m", "tracefl", "run", "--multirun", *EVERY, *own, *sweep, seeds]
            if status := subprocess.run(command, check=False).returncode:
                raise SystemExit(f"exit status {status}: {' '.join(command)}")
        found = read_runs(options.log_dir / "recovery", model, options.seeds)
        ordered = sorted(found, key=lambda choice: (choice[0] != HEALTHY[0], ORDER.index(choice[1])))
        lines += [(model, *choice, *cells(found[choice], found[HEALTHY])) for choice in ordered]
    sys.stdout.write("".join(f"| {' | '.join(line)} |\n" for line in lines))


def read_runs(folder: Path, model: str, seeds: Sequence[int]) -> dict[tuple[str, str], dict[int, Run]]:
    """Return the runs of a model by fault and mitigation, then by seed.

    Raises:
        RecordError: Two runs differ in other keys: the folder holds those of another benchmark.
    """
    found: dict[tuple[str, str], dict[int, Run]] = {HEALTHY: {}}
    for place in run_folders(folder):
        config = read_config(place / "config.yaml")
        if config.model.name != model or config.seed not in seeds or not (place / "results.json").exists():
            continue
        choice = (choice_name(config.fault), choice_name(config.mitigate))
        of_seed = found.setdefault(choice, {})
        if config.seed in of_seed:
            raise RecordError(f"{folder} holds two runs of {model}, {choice} and seed {config.seed}; give --log-dir")
        accuracies = [result.row["global_accuracy"] for result in RoundStore(place / "rounds").results()]
        mitigation = json.loads((place / "results.json").read_text())["mitigation"]
        of_seed[config.seed] = Run(accuracies[-1], fmean(accuracies[-LAST:]), mitigation)
    return found


def cells(runs: dict[int, Run], healthy: dict[int, Run]) -> tuple[str, ...]:
    """Return a setting's cells of the table."""
    hits = [run.mitigation for run in runs.values() if run.mitigation is not None]
    faulty = [first_hit(found) for found in hits]
    rounds = sorted(number for number in faulty if number is not None)
    return (
        str(len(runs)),
        words(over_seeds([run.last for run in runs.values()])),
        words(over_seeds([run.last - healthy[seed].last for seed, run in runs.items()]), "+")
        if runs is not healthy
        else "",
        words(over_seeds([run.late for run in runs.values()])),
        words(over_seeds([run.late - healthy[seed].late for seed, run in runs.items()]), "+")
        if runs is not healthy
        else "",
        f"{len(rounds)} of {len(hits)}" if hits else "",
        " ".join(map(str, rounds)),
        f"{sum(found['honest_clients_hit'] > 0 for found in hits)} of {len(hits)}" if hits else "",
    )


def first_hit(found: dict[str, Any]) -> int | None:
    """Return the first round in which the faulty client was left out or weighed less."""
    done = (
        each["from_round"]
        for each in found["decisions"]
        if each["faulty"] and each["decision"] in ("exclude", "downweight")
    )
    return min(done, default=None)


if __name__ == "__main__":
    main()
