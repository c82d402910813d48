"""Who finds a client that was taught a confusion, where its kind is known and where it is not; who is named wrongly.

    python TraceFL/benchmarks/confusion.py DATA OUT [--seeds 1 2] [--faults none ...] [--drawn 10 4] [--alphas 0.7]

Federations of ten clients, one epoch a round: a small network with and without normalisation on 16-pixel images, 400 of
a client on average, Dirichlet; all take part in each of 5 rounds, or 4 drawn ones in each of 12. Client 0 is faulty, or
where it holds fewer than 60 examples that the fault can change, the one that holds the most; or all are honest. Asked
are 10 of each class of the server's 200 examples.

Who is first: of the runs in which all take part. A round counts where an example is mispredicted as the fault wants; a
rule is right where the client that it suspects most, over these confusions, each counted once, is the faulty one; a
rule that judges inputs (the last three), by the share of them. Added up: what a rule says of each round so far, brought
to a mean of 0 and a deviation of 1 over the clients.

Who stands out: ``StandOuts`` over the rounds of a run, which is told nothing. A run counts as found where its faulty
client is named.

OUT/rows.csv and OUT/runs.csv are written run by run, and the same command goes on where it was; OUT/confusion.md is
made of both. The parts and weights of tracefl/provenance/confusion.py were chosen on seeds 101 to 104, the bar of
tracefl/provenance/standing_out.py on the honest runs of seeds 101, 102, 1 and 2; others are for reports.
"""

import argparse
import csv
import math
import random
import statistics
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from fidelity import thin
from fidelity_table import head, line
from hydra import compose, initialize_config_module
from torch import Tensor, nn
from torch.nn import functional

from tracefl.common.seeds import derive_seed
from tracefl.errors import DataError
from tracefl.experiment.preparation import Prepared, prepare_run
from tracefl.experiment.settings import read_settings
from tracefl.learning.examples import Examples
from tracefl.learning.faults import Fault
from tracefl.learning.training import evaluate, train
from tracefl.provenance import (
    Confusions,
    Method,
    RoundRecord,
    StandOuts,
    attribute_round,
    class_suspicions,
    confusions,
    logits_without,
    score_suspicions,
    select_of_each_class,
)
from tracefl.provenance.confusion import standardized
from tracefl.provenance.updates import cosines_with_others, update_blocks
from tracefl.records.settings import Settings

CLIENTS, SIZE, OF_CLASS = 10, 16, 10
ROUNDS = {10: 5, 4: 12}
"""Clients that are drawn a round, to rounds."""

FAULTS: dict[str, tuple[str, ...]] = {
    "none": (),
    "all to 0, 100 %": ("fault=label_flip", "fault.all_to=0"),
    "all to 0, 50 %": ("fault=label_flip", "fault.all_to=0", "fault.share=0.5"),
    "all to 0, 30 %": ("fault=label_flip", "fault.all_to=0", "fault.share=0.3"),
    "all to 0, 10 %": ("fault=label_flip", "fault.all_to=0", "fault.share=0.1"),
    "all to 0, 5 %": ("fault=label_flip", "fault.all_to=0", "fault.share=0.05"),
    "two clients, all to 0, 50 %": ("fault=label_flip", "fault.all_to=0", "fault.share=0.5", "fault.clients=[0,1]"),
    "all to 0, 50 %, from round 4": ("fault=label_flip", "fault.all_to=0", "fault.share=0.5", "fault.from_round=4"),
    "pairs, 100 %": ("fault=label_flip", "fault.flip={1: 7, 4: 9, 3: 5}"),
    "pairs, 50 %": ("fault=label_flip", "fault.flip={1: 7, 4: 9, 3: 5}", "fault.share=0.5"),
    "backdoor, 30 %": ("fault=backdoor", "fault.share=0.3"),
    "backdoor, 10 %": ("fault=backdoor", "fault.share=0.1"),
    "random labels, 50 %": ("fault=random_labels", "fault.share=0.5"),
}
KEYS = (
    *("provenance=off", "model.pretrained=false", f"num_clients={CLIENTS}"),
    *("client.epochs=1", "batch_size=32", f"dataset.image_size={SIZE}", "dataset.min_examples_per_label=1"),
    *("dataset.max_examples_per_client=100000", "dataset.max_server_examples=200"),
)
EXAMPLES = 400
SETTING = ("model", "dataset", "alpha", "fault", "drawn", "seed")
ROW_COLUMNS = (*SETTING, "round", "accuracy", "rule", "right", "added_up")
RUN_COLUMNS = (*SETTING, "accuracy", "counted", "total", "client", "toward", "since", "faulty", "faulty_total")
RULES = ("suspicion", "by class", "both", "cosine", "unlike", "removal", "an input", "own effect", "input + own")
QUANTILES = (0.75, 0.99)
"""Of the honest runs' highest sums, through which a Gumbel distribution is laid."""

PLACE = torch.device("cpu")


class Small(nn.Module):
    """Three convolutions and a hidden layer for images of ``(3, 16, 16)``."""

    def __init__(self, normalised: bool) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList([nn.Conv2d(a, b, 3, padding=1) for a, b in ((3, 24), (24, 48), (48, 48))])
        self.norms = nn.ModuleList([nn.BatchNorm2d(b) if normalised else nn.Identity() for b in (24, 48, 48)])
        self.hidden, self.out = nn.Linear(48 * 4 * 4, 64), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(B, 10)`` logits."""
        for layer, (convolution, norm) in enumerate(zip(self.convolutions, self.norms, strict=True)):
            x = functional.relu(norm(convolution(x)))
            x = functional.max_pool2d(x, 2) if layer < 2 else x
        return self.out(functional.relu(self.hidden(x.flatten(1))))


def main() -> None:
    """Measure what is not in OUT yet, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with mnist and cifar10 in hub layout")
    parser.add_argument("out", type=Path, help="folder of what is measured")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--models", nargs="+", choices=("cnn", "norm"), default=["cnn", "norm"])
    parser.add_argument("--datasets", nargs="+", choices=("mnist", "cifar10"), default=["mnist", "cifar10"])
    parser.add_argument("--alphas", type=float, nargs="+", default=[0.7])
    parser.add_argument("--drawn", type=int, nargs="+", choices=tuple(ROUNDS), default=[10])
    parser.add_argument("--faults", nargs="+", choices=tuple(FAULTS), default=[name for name in FAULTS if FAULTS[name]])
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    rows, runs = options.out / "rows.csv", options.out / "runs.csv"
    for path, columns in ((rows, ROW_COLUMNS), (runs, RUN_COLUMNS)):
        if not path.exists():
            path.write_text(",".join(columns) + "\n")
    done = {tuple(row[name] for name in SETTING) for row in read(runs)}
    wanted = [
        (model, dataset, str(alpha), fault, str(drawn), str(seed))
        for seed in options.seeds
        for drawn in options.drawn
        for dataset in options.datasets
        for model in options.models
        for alpha in options.alphas
        for fault in options.faults
    ]
    for setting in wanted:
        if setting in done:
            continue
        try:
            found, run = measure(dict(zip(SETTING, setting, strict=True)), options.data.resolve())
        except DataError as error:  # at alpha 0.1 a client may hold less than a batch
            sys.stderr.write(f"{' '.join(setting)}: {error}\n")
            continue
        with rows.open("a", newline="") as file:
            csv.DictWriter(file, ROW_COLUMNS).writerows(found)
        with runs.open("a", newline="") as file:
            csv.DictWriter(file, RUN_COLUMNS).writerow(run)
    text = "\n".join((*who_is_first(read(rows)), "", *who_stands_out(read(runs))))
    (options.out / "confusion.md").write_text(text + "\n")
    sys.stdout.write(text + "\n")


def read(path: Path) -> list[dict[str, str]]:
    """Return a table's rows."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def measure(setting: dict[str, str], data: Path) -> tuple[list[dict[str, object]], dict[str, object]]:
    """Train a federation; return a row for each round that counts and each rule, and the run's."""
    dataset, drawn = setting["dataset"], int(setting["drawn"])
    with tempfile.TemporaryDirectory() as folder:
        thin(data / dataset, Path(folder) / "data", CLIENTS * EXAMPLES)
        keys = (
            *(f"dataset={dataset}", f"dataset.path={folder}/data", f"seed={setting['seed']}"),
            *(f"dirichlet_alpha={setting['alpha']}", f"clients_per_round={drawn}", f"num_rounds={ROUNDS[drawn]}"),
        )
        fault_keys = FAULTS[setting["fault"]]
        with initialize_config_module("tracefl.conf", version_base=None):
            cfg = compose("base", [*KEYS, *keys, *fault_keys, *(("fault.min_examples=60",) if fault_keys else ())])
        settings = read_settings(cfg)
        prepared = prepare_run(settings)
    fault = None if prepared.fault is None else prepared.fault.truth
    found: list[dict[str, object]] = []
    added: dict[str, Tensor] = {}
    standing, highest, faulty_highest, counted, accuracy = StandOuts(), None, 0.0, 0, 0.0
    for model, record in rounds(settings, prepared, setting["model"] == "norm"):
        accuracy = evaluate(model, prepared.data.server).accuracy
        inputs, labels = of_each_class(prepared.data.server)
        pushes = confusions(model, record, inputs, labels)
        suspicions = class_suspicions(pushes)
        counted += bool(suspicions)
        for each in standing.add(record.server_round, suspicions):
            highest = each if highest is None or each.total > highest.total else highest
            if fault is not None and each.client_id in fault.clients:
                faulty_highest = max(faulty_highest, each.total)
        if fault is None or drawn < CLIENTS or record.server_round < fault.from_round:
            continue
        faulty = fault.faulty(tuple(record.clients), record.server_round)
        for rule, values in suspicions_of(model, record, prepared, fault, pushes).items():
            of_round = values if values.ndim == 1 else values.mean(dim=0)
            added[rule] = added.get(rule, torch.zeros(CLIENTS, dtype=torch.float64)) + standardized(of_round)
            right = [score_suspicions(some, faulty).localization_accuracy for some in (values, added[rule])]
            now = {"round": record.server_round, "accuracy": accuracy, "rule": rule}
            found.append({**setting, **now, "right": right[0], "added_up": right[1]})
    run: dict[str, object] = {**setting, "accuracy": accuracy, "counted": counted, "faulty_total": faulty_highest}
    run["faulty"] = "" if fault is None else " ".join(fault.clients)
    if highest is not None:
        run |= {"total": highest.total, "client": highest.client_id, "toward": highest.toward, "since": highest.since}
    return found, run


def rounds(settings: Settings, prepared: Prepared, normalised: bool) -> Iterator[tuple[nn.Module, RoundRecord]]:
    """Yield each round and the model that holds its average."""
    honest, fault = prepared.data.clients, prepared.fault
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(settings.seed, "model"))
        model = Small(normalised)
    for server_round in range(1, settings.num_rounds + 1):
        is_faulty = fault is not None and server_round >= fault.truth.from_round
        clients = {**honest, **fault.examples} if fault is not None and is_faulty else honest
        draw = random.Random(derive_seed(settings.seed, "drawn", server_round))
        drawn = sorted(draw.sample(sorted(clients), settings.clients_per_round))
        total = sum(len(clients[client_id]) for client_id in drawn)
        p = {client_id: len(clients[client_id]) / total for client_id in drawn}
        start = {n: t.clone() for n, t in model.state_dict().items()}
        states = {}
        for client_id in drawn:
            model.load_state_dict(start)
            seed = derive_seed(settings.seed, "train", server_round, client_id)
            train(model, clients[client_id], settings.training, seed)
            states[client_id] = {n: t.clone() for n, t in model.state_dict().items()}
        average = {
            n: sum((p[k] * state[n].double() for k, state in states.items()), torch.zeros(())).to(t.dtype)
            if t.is_floating_point()
            else t
            for n, t in start.items()
        }
        model.load_state_dict(average)
        yield model.eval(), RoundRecord(server_round, states, p, start, average)


def of_each_class(examples: Examples) -> tuple[Tensor, Tensor]:
    """Return some inputs of each class, and their labels."""
    return examples.batch(select_of_each_class(examples.labels, OF_CLASS))


def suspicions_of(
    model: nn.Module, record: RoundRecord, prepared: Prepared, fault: Fault, found: Confusions
) -> Mapping[str, Tensor]:
    """Return each rule's ``(K,)`` suspicions of a round, or ``(M, K)`` of its inputs; none without mispredictions."""
    server = fault.inputs(prepared.data.server)
    predicted = evaluate(model, server).predicted
    misled = torch.nonzero(fault.misled(server.labels, predicted)).flatten()
    if not len(misled):
        return {}
    if server is not prepared.data.server:  # a trigger is in each
        found = confusions(model, record, *of_each_class(server))
    pairs = torch.stack((server.labels[misled], predicted[misled])).unique(dim=1)
    inputs, labels = server.batch(misled)
    products = sum(
        (block @ block.t() for _, _, block in update_blocks(model, record, PLACE)),
        torch.zeros(CLIENTS, CLIENTS, dtype=torch.float64),
    )
    by_class = found.class_suspicion.unsqueeze(1).expand_as(found.push)
    parts = {"suspicion": found.suspicion, "by class": by_class, "both": found.suspicion + by_class}
    each = found.suspicion[:, labels, predicted[misled]]  # (K, M)
    whole, without = logits_without(model, record, inputs)  # (M, C), (K, M, C)
    effects, i = whole - without, torch.arange(len(misled))
    own = effects[:, i, predicted[misled]] - effects[:, i, labels]
    return {name: part[:, pairs[0], pairs[1]].mean(dim=1) for name, part in parts.items()} | {
        "an input": each.t(),
        "own effect": own.t(),
        "input + own": (each + standardized(own) / 2).t(),
        "cosine": 1 - cosines_with_others(products),
        "unlike": attribute_round(model, record, inputs, labels, Method.unlike()).contributions.double().mean(dim=0),
        "removal": (effects[:, i, predicted[misled]] - effects.mean(dim=2)).mean(dim=1),
    }


def who_is_first(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """Return how often each rule is right, in % of the rounds that count, and added up over rounds."""
    names = ("model", "dataset", "alpha", "fault")
    places = sorted({tuple(r[name] for name in names) for r in rows})
    lines = [
        "Rounds in which the faulty client is suspected most, in %; in brackets, added up, at the last round.",
        "",
        *head(["model", "data", "alpha", "fault", "seeds", "rounds", "chance", *RULES]),
    ]
    for place in (*places, ("all", "", "", "")):
        of = [r for r in rows if place[0] == "all" or tuple(r[name] for name in names) == place]
        counted = {tuple(r[name] for name in (*SETTING, "round")) for r in of}
        cells = []
        for rule in RULES:
            mine = [r for r in of if r["rule"] == rule]
            last = {tuple(r[name] for name in SETTING): float(r["added_up"]) for r in mine}  # of each run's last round
            right = sum(float(r["right"]) for r in mine) / max(1, len(mine))
            cells.append(f"{100 * right:.0f} ({100 * sum(last.values()) / max(1, len(last)):.0f})")
        seeds = len({r["seed"] for r in of})
        lines.append(line([*place, str(seeds), str(len(counted)), f"{100 / CLIENTS:.0f}", *cells]))
    return lines


def who_stands_out(runs: Sequence[Mapping[str, str]]) -> list[str]:
    """Return in how many runs the faulty client was named, and in how many honest ones anybody; then the bar's fit."""
    bar = StandOuts().bar
    lines = [
        f"Runs in which somebody is named (a sum of {bar:.2f}), and in which it is the faulty client.",
        "",
        *head(["fault", "drawn", "runs", "named", "the faulty one", "of runs that count", "median sum", "highest sum"]),
    ]
    for fault, drawn in sorted({(r["fault"], r["drawn"]) for r in runs}):
        of = [r for r in runs if (r["fault"], r["drawn"]) == (fault, drawn)]
        named = [r for r in of if float(r["total"] or 0) >= bar]
        right = [r for r in named if r["client"] in r["faulty"].split()]
        totals = [float(r["total"] or 0) for r in of]
        some = [str(len(of)), str(len(named)), "" if fault == "none" else str(len(right))]
        some.append(str(sum(r["counted"] != "0" for r in of)))
        lines.append(line([fault, drawn, *some, f"{statistics.median(totals):.2f}", f"{max(totals):.2f}"]))
    honest = sorted(float(r["total"] or 0) for r in runs if r["fault"] == "none")
    if len(honest) > 1:
        low, high = (honest[math.ceil(share * len(honest)) - 1] for share in QUANTILES)
        spread = math.log(math.log(QUANTILES[0]) / math.log(QUANTILES[1]))
        scale = (high - low) / spread
        mode = low + scale * math.log(-math.log(QUANTILES[0]))
        lines += ["", f"Of the {len(honest)} honest runs: mode {mode:.3f}, scale {scale:.3f} by two quantiles."]
    return lines


if __name__ == "__main__":
    main()
