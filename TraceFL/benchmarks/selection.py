"""Whether clients drawn by their contributions make a better model than clients drawn at random.

Reads the runs below a folder: the same settings and seeds, once with strategy=fedavg and once with
strategy=provenance_selection. Prints, of each setting, the global accuracy after the last round and its mean over all
rounds, mean and standard deviation over seeds; the difference seed by seed; and where faulty clients are known, their
part in all the places of the rounds after the first, beside what chance would give them.

tracefl run --multirun strategy=fedavg,provenance_selection seed=1,2,3 provenance.inputs=all ...
python TraceFL/benchmarks/selection.py logs/default
"""

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from tracefl.conf.run_names import run_folders
from tracefl.learning.faults.words import NO_FAULT, describe_fault, faulty_clients
from tracefl.paper.rule_findings import SeedMean, over_seeds
from tracefl.records.naming import fingerprint
from tracefl.records.settings import Settings, read_config
from tracefl.records.store import RoundStore

RANDOM, SELECTED = "fedavg", "provenance_selection"


@dataclass(frozen=True)
class Run:
    """A finished run: its last and mean global accuracy, and the faulty clients' part in its rounds, fractions."""

    config: Settings
    last: float
    mean: float
    faulty: float | None


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of the runs")
    runs = [read(folder) for folder in run_folders(parser.parse_args().folder) if (folder / "results.json").exists()]
    settings: dict[str, dict[str, dict[int, Run]]] = {}
    for run in runs:
        if run.config.strategy.name not in (RANDOM, SELECTED):
            continue
        of_strategy = settings.setdefault(setting(run.config), {RANDOM: {}, SELECTED: {}})
        of_strategy[run.config.strategy.name][run.config.seed] = run
    columns = ("setting", "strategy", "seeds", "last round", "mean of rounds", "difference, last", "faulty drawn")
    sys.stdout.write(f"| {' | '.join(columns)} |\n| --- | --- |{' ---: |' * 5}\n")
    for of_strategy in settings.values():
        both = sorted(of_strategy[RANDOM].keys() & of_strategy[SELECTED].keys())
        for name, seeds in of_strategy.items() if both else ():
            found = [seeds[seed] for seed in both]
            difference = over_seeds(seeds[seed].last - of_strategy[RANDOM][seed].last for seed in both)
            cells = (
                describe(found[0].config),
                name,
                str(len(found)),
                words(over_seeds(run.last for run in found)),
                words(over_seeds(run.mean for run in found)),
                words(difference, sign="+") if name == SELECTED else "",
                words(over_seeds(run.faulty for run in found)),
            )
            sys.stdout.write(f"| {' | '.join(cells)} |\n")
    compared = sum(2 * len(s[RANDOM].keys() & s[SELECTED].keys()) for s in settings.values())
    if compared < len(runs):
        sys.stdout.write(
            f"\nleft out: {len(runs) - compared} runs whose setting and seed was not run with both strategies\n"
        )


def read(folder: Path) -> Run:
    """Read a finished run."""
    config = read_config(folder / "config.yaml")
    results = list(RoundStore(folder / "rounds").results())
    accuracies = [result.row["global_accuracy"] for result in results]
    faulty = None
    if config.fault is not None:
        culprits = set(json.loads((folder / "fault.json").read_text())["clients"])
        places = [client for result in results[1:] for client in (*result.client_weights, *result.dropped)]
        faulty = fmean(client in culprits for client in places)
    return Run(config, accuracies[-1], fmean(accuracies), faulty)


def setting(config: Settings) -> str:
    """Return the same for runs that differ in their strategy and seed alone."""
    return fingerprint({**config.resolved, "strategy": {}, "seed": 0})


def describe(config: Settings) -> str:
    """Return a setting in words, with the part that chance would give faulty clients."""
    fault = describe_fault(config.fault, config.num_clients)
    if fault != NO_FAULT:
        fault += f" (chance {100 * faulty_clients(config.fault) / config.num_clients:.0f} %)"
    return (
        f"{config.model.name}, {config.dataset.name}, alpha {config.dirichlet_alpha:g}, "
        f"{config.clients_per_round} of {config.num_clients}, {config.num_rounds} rounds, fault {fault}"
    )


def words(measured: SeedMean | None, sign: str = "") -> str:
    """Return percent with the standard deviation over seeds, nothing where nothing was measured."""
    if measured is None:
        return ""
    spread = "" if measured.spread is None else f" ± {100 * measured.spread:.1f}"
    return f"{100 * measured.mean:{sign}.1f}{spread}"


if __name__ == "__main__":
    main()
