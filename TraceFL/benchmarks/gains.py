"""What the average gains without a client, of which mitigation decides: of honest ones, and of one that suppresses.

Trains small federations on digits in this process, 12 rounds each, and leaves every participant out of every round from
the fourth on, as ``mitigate`` does: the accuracy on the server's digits without it, less that with all. Printed are the
largest gain of an honest client's single round, and the largest median of its last three; in how many of these windows
that reaches ``mitigate.gain`` and ``mitigate.gain_alone``; and where client 0 suppresses hidden units, with updates
bounded as a run bounds them and not, the accuracy of the last round, and the smallest of its own medians. In points of
accuracy, over all seeds.

python TraceFL/benchmarks/gains.py
"""

import argparse
import random
import sys
import warnings
from collections.abc import Sequence
from statistics import fmean, median_low

import torch
from attacks import ATTACKER, SmallCnn, State, dead
from gaming import BOUND, prepared, round_of, trained_on
from torch import nn

from tracefl.common.seeds import derive_seed
from tracefl.learning.examples import Examples
from tracefl.learning.training import evaluate
from tracefl.provenance import weights_without

ROUNDS, FROM_ROUND, WINDOW = 12, 4, 3
GAIN, GAIN_ALONE = 0.03, 0.1
SUPPRESSED = -8.0
"""The bias of its hidden units: of -30 they are dead for good after one round, and nothing brings them back."""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--alphas", type=float, nargs="+", default=[0.1, 0.3, 1.0, 5.0])
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    head = (
        "alpha",
        "clients",
        "client 0",
        "accuracy",
        "honest: round",
        "median",
        "windows",
        ">= 3",
        ">= 10",
        "its own",
    )
    say(f"| {' | '.join(head)} |\n|{' ---: |' * len(head)}")
    for alpha in given.alphas:
        for drawn in (4, 8):
            for words, hostile, bound in (
                ("honest", False, BOUND),
                ("suppresses", True, BOUND),
                ("suppresses, unbounded", True, None),
            ):
                runs = [federation(alpha, drawn, seed, hostile, bound) for seed in given.seeds]
                say(f"| {' | '.join((f'{alpha:g}', f'{drawn} of 10', words, *cells(runs, hostile)))} |")


def federation(
    alpha: float, drawn: int, seed: int, hostile: bool, bound: float | None
) -> tuple[float, dict[str, list[float]]]:
    """Train a federation; returns the accuracy of its last round, and each client's gains, round by round."""
    settings, data = prepared(10, drawn, seed, alpha)
    torch.manual_seed(seed)
    model = SmallCnn(normalised=False)
    start: State = {n: t.clone() for n, t in model.state_dict().items()}
    gains: dict[str, list[float]] = {}
    reached = 0.0
    for server_round in range(1, ROUNDS + 1):
        clients = random.Random(derive_seed(seed, "sample", server_round)).sample(sorted(data.clients), drawn)
        sent = {
            k: trained_on(data.clients[k], model, start, settings.training, derive_seed(seed, "train", server_round, k))
            for k in clients
        }
        if hostile and ATTACKER in sent:
            sent[ATTACKER] = dead(sent[ATTACKER], SUPPRESSED)
        sizes = {k: len(data.clients[k]) for k in clients}
        shares = {k: n / sum(sizes.values()) for k, n in sizes.items()}
        record = round_of(model, start, sent, shares, bound)
        start = record.global_weights
        reached = accuracy(model, start, data.server)
        if server_round >= FROM_ROUND:
            for k in clients:
                gains.setdefault(k, []).append(accuracy(model, weights_without(record, k), data.server) - reached)
    return reached, gains


def accuracy(model: nn.Module, weights: State, server: Examples) -> float:
    """Return a model's accuracy on the server's examples, 0 to 1."""
    model.load_state_dict(dict(weights))
    return evaluate(model, server).accuracy


def medians(gains: Sequence[float]) -> list[float]:
    """Return the median of each whole window of a client's rounds."""
    return [median_low(gains[n : n + WINDOW]) for n in range(len(gains) - WINDOW + 1)]


def cells(runs: Sequence[tuple[float, dict[str, list[float]]]], hostile: bool) -> tuple[str, ...]:
    """Return the cells of a setting."""
    honest = [own for _, gains in runs for k, own in gains.items() if not (hostile and k == ATTACKER)]
    windows = [middle for own in honest for middle in medians(own)]
    its_own = [middle for _, gains in runs for middle in medians(gains.get(ATTACKER, []))] if hostile else []
    return (
        f"{100 * fmean(reached for reached, _ in runs):.1f}",
        f"{100 * max(gain for own in honest for gain in own):+.1f}",
        f"{100 * max(windows):+.1f}",
        str(len(windows)),
        str(sum(middle >= GAIN for middle in windows)),
        str(sum(middle >= GAIN_ALONE for middle in windows)),
        f"{100 * min(its_own):+.1f}" if its_own else "",
    )


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
