"""How often the bounds on a client's reply meet an honest client, and what a client gains that lies about its examples.

Trains small federations on digits in this process, and prints two tables in Markdown. The first is of honest runs
without bounds: how far above its round's median a client's update, its change of the buffers and its number of examples
lie. The second is of a deployment's clients, one of which multiplies its number of examples: the accuracy after the
last round, with the bound on weights and without, mean over seeds.

python TraceFL/benchmarks/bounds.py
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from statistics import fmean, median_low

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from tracefl.conf.composing import compose_config
from tracefl.experiment.experiment import MAX_WEIGHT_MULTIPLE
from tracefl.experiment.runner import run_settings
from tracefl.experiment.settings import read_settings
from tracefl.federation import client
from tracefl.federation.in_process import federation_here
from tracefl.federation.messages import METRICS, NUM_EXAMPLES, client_id_of
from tracefl.federation.plan import FederationHooks, FederationPlan, RoundOutcome
from tracefl.federation.server import Federation
from tracefl.provenance.norms import update_norms
from tracefl.records.settings import Settings

SMALL = (
    *("model=resnet18", "++model.config.layers=[1,1,1,1]", "dataset=digits", "dataset.image_size=16"),
    *("provenance=off", "store=none", "backend=in_process"),
)
LIAR = "0"
LIES = (1, 10, 10**6, 10**9)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--only", choices=("honest", "lies"))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if given.only != "lies":
            honest_table(Path(folder), given.seeds)
        if given.only != "honest":
            lies_table(Path(folder), given.seeds)


def honest_table(folder: Path, seeds: list[int]) -> None:
    """Print how far honest clients lie above the median of their round."""
    columns = ("alpha", "batch", "clients", "update", "buffers", "above 3, 5", "examples", "above 3")
    say(f"| {' | '.join(columns)} |\n|{' ---: |' * len(columns)}")
    for alpha, batch in ((0.1, 16), (0.3, 16), (1.0, 16), (0.1, 4)):
        found: list[tuple[float, float, float]] = []
        for seed in seeds:
            settings = settings_of(
                folder,
                *(f"dirichlet_alpha={alpha}", f"batch_size={batch}", f"seed={seed}", "num_rounds=3"),
                *("num_clients=12", "clients_per_round=8", "strategy.max_update_norm=null"),
            )
            run(settings, lambda plan: plan, lambda plan, outcome: found.extend(ratios(plan, outcome)))  # noqa: B023
        updates, buffers, examples = (sorted(column) for column in zip(*found, strict=True))
        above = ", ".join(str(sum(x > n for x in (*updates, *buffers))) for n in (3, 5))
        cells = (alpha, batch, len(found), f"{updates[-1]:.2f}", f"{buffers[-1]:.2f}", above, f"{examples[-1]:.1f}")
        say(f"| {' | '.join(map(str, cells))} | {sum(x > MAX_WEIGHT_MULTIPLE for x in examples)} |")


def lies_table(folder: Path, seeds: list[int]) -> None:
    """Print the accuracy after the last round by how many times its examples a client claims."""
    say(f"\n| bound | {' | '.join(f'times {lie:g}' for lie in LIES)} |\n| --- |{' ---: |' * len(LIES)}")
    for words, multiple in (("none", None), ("three medians", MAX_WEIGHT_MULTIPLE)):
        cells = []
        for lie in LIES:
            last = []
            for seed in seeds:
                settings = settings_of(
                    folder, f"seed={seed}", "num_clients=8", "clients_per_round=8", "num_rounds=4", "client.epochs=1"
                )

                def deployed(plan: FederationPlan) -> FederationPlan:
                    return replace(plan, num_examples={}, max_weight_multiple=multiple)  # noqa: B023

                accuracies: list[float] = []
                run(settings, deployed, lambda _, outcome: accuracies.append(outcome.evaluation.accuracy), lie)  # noqa: B023
                last.append(accuracies[-1])
            cells.append(f"{100 * fmean(last):.1f}")
        say(f"| {words} | {' | '.join(cells)} |")


def ratios(plan: FederationPlan, outcome: RoundOutcome) -> Iterator[tuple[float, float, float]]:
    """Yield of each client its update's norm, its change of the buffers and its examples, in medians of the round."""
    record = outcome.record
    floating = [name for name, tensor in plan.initial_weights.items() if tensor.is_floating_point()]
    parts = ([n for n in floating if n in plan.trainable], [n for n in floating if n not in plan.trainable])
    measured: list[Mapping[str, float]] = [update_norms(record.clients, record.previous_global, part) for part in parts]
    measured.append(record.client_weights)
    for client_id in record.clients:
        update, buffers, examples = (each[client_id] / median_low(each.values()) for each in measured)
        yield update, buffers, examples


def settings_of(folder: Path, *overrides: str) -> Settings:
    """Return a run's settings."""
    return read_settings(
        compose_config(["dirichlet_alpha=0.3", *SMALL, *overrides, f"log_dir={folder}", "overwrite=true"])
    )


def run(
    settings: Settings,
    change: Callable[[FederationPlan], FederationPlan],
    look: Callable[[FederationPlan, RoundOutcome], object],
    lie: int = 1,
) -> None:
    """Train a federation whose plan is changed, and one of whose clients may lie; look at each of its rounds."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        reply = client.train_client(message, context)
        if client_id_of(message) == LIAR:
            reply.content.metric_records[METRICS][NUM_EXAMPLES] *= lie
        return reply

    class Changed(Federation):
        def __init__(self) -> None:
            self._inner = federation_here(app)

        def run(self, plan: FederationPlan, hooks: FederationHooks) -> None:
            plan = change(plan)

            def on_round(outcome: RoundOutcome) -> None:
                look(plan, outcome)
                hooks.on_round(outcome)

            self._inner.run(plan, replace(hooks, on_round=on_round))

    run_settings(settings, Changed(), show=lambda *_: None)


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
