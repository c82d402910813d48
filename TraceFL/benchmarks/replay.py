"""How near to a run trained again does averaging again come? Runs with store=all, each with who is left out of it.

    python TraceFL/benchmarks/replay.py logs/default/RUN:3 logs/default/OTHER:2,5 [--carry 0 0.25 0.5 0.75 1]

Trains each without the clients from its first round on, in a folder beside it, where that is not done yet. Prints, in
points and for each ``carry``, the mean over the rounds after the first of how far global accuracy and attack success
are from those of the run trained again; and, as what a guess is worth, how far those of the run with all clients are.
"""

import argparse
import contextlib
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from tracefl.experiment.retraining import retrain
from tracefl.questions.replay import Replay, ReplayRequest, replay

MEASURES = ("accuracy", "attack_success")


def main() -> None:
    """Print a row for each run and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="RUN:CLIENTS")
    parser.add_argument("--carry", nargs="+", type=float, default=[0.0, 0.25, 0.5, 0.75, 1.0])
    options = parser.parse_args()
    heads = ["run", "without", "measure", "all clients", *(f"carry {carry:g}" for carry in options.carry)]
    sys.stdout.write(f"| {' | '.join(heads)} |\n{'|---' * len(heads)}|\n")
    for given in options.runs:
        folder, _, clients = given.rpartition(":")
        asked = ReplayRequest(Path(folder), 1, tuple(sorted(set(clients.split(",")), key=int)), "train")
        with contextlib.redirect_stdout(sys.stderr):
            trained = replay(asked, retrain)
        again = [replay(replace(asked, how="reaggregate", carry=carry), retrain) for carry in options.carry]
        for measure in MEASURES:
            truth = values(trained, measure, "after")
            if truth and None not in truth:
                cells = [values(trained, measure, "before"), *(values(found, measure, "after") for found in again)]
                points = [f"{distance(truth, cell):.1f}" for cell in cells]
                name = measure.replace("_", " ")
                sys.stdout.write(f"| {' | '.join([trained.name, clients, name, *points])} |\n")
                sys.stdout.flush()


def values(found: Replay, measure: str, side: str) -> list[float | None]:
    """Return a measure of the rounds after the first, where averaging again is exact; None where it is not known."""
    return [getattr(getattr(r, side), measure) for r in found.rounds[1:]]


def distance(truth: Sequence[float | None], found: Sequence[float | None]) -> float:
    """Return the mean difference in points."""
    return 100 * fmean(abs(t - f) for t, f in zip(truth, found, strict=True) if t is not None and f is not None)


if __name__ == "__main__":
    main()
