"""Who finds a client that was taught a confusion: the parts of a suspicion, their sum, and other rules.

    python TraceFL/benchmarks/confusion.py DATA OUT [--seeds 1 2 3] [--models cnn norm] [--datasets mnist cifar10]

Federations of ten clients, all taking part, five rounds of one epoch: a small network with and without normalisation on
16-pixel images, 400 of a client on average, Dirichlet 0.7; client 0 is faulty, or where it holds fewer than 60 examples
that the fault can change, the one that holds the most. Asked are the server's 200 examples. A round counts where one of
them is mispredicted as the fault wants; a rule is right where the client that it suspects most, over these confusions,
each counted once, is the faulty one. Added up: what a rule says of each round so far, brought to a mean of 0 and a
deviation of 1 over the clients.

OUT/rows.csv is written run by run, and the same command goes on where it was; OUT/confusion.md is made of it. The parts
and weights of tracefl/provenance/confusion.py were chosen on seeds 101 and 102; others are for reports.
"""

import argparse
import csv
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
from tracefl.experiment.preparation import Prepared, prepare_run
from tracefl.experiment.settings import read_settings
from tracefl.learning.faults import Fault
from tracefl.learning.training import evaluate, train
from tracefl.provenance import Method, RoundRecord, attribute_round, confusions, removal_effects, score_suspicions
from tracefl.provenance.confusion import standardized
from tracefl.provenance.updates import cosines_with_others, update_blocks
from tracefl.records.settings import Settings

CLIENTS, ROUNDS, SIZE = 10, 5, 16
FAULTS = {
    "all to 0, 100 %": ("fault=label_flip", "fault.all_to=0"),
    "all to 0, 50 %": ("fault=label_flip", "fault.all_to=0", "fault.share=0.5"),
    "all to 0, 30 %": ("fault=label_flip", "fault.all_to=0", "fault.share=0.3"),
    "all to 0, 10 %": ("fault=label_flip", "fault.all_to=0", "fault.share=0.1"),
    "pairs, 100 %": ("fault=label_flip", "fault.flip={1: 7, 4: 9, 3: 5}"),
    "pairs, 50 %": ("fault=label_flip", "fault.flip={1: 7, 4: 9, 3: 5}", "fault.share=0.5"),
    "backdoor, 30 %": ("fault=backdoor", "fault.share=0.3"),
    "backdoor, 10 %": ("fault=backdoor", "fault.share=0.1"),
    "random labels, 50 %": ("fault=random_labels", "fault.share=0.5"),
}
KEYS = (
    *("provenance=off", "model.pretrained=false", f"num_clients={CLIENTS}", f"clients_per_round={CLIENTS}"),
    *("client.epochs=1", "batch_size=32", f"dataset.image_size={SIZE}", "dataset.min_examples_per_label=1"),
    *("dataset.max_examples_per_client=100000", "dataset.max_server_examples=200"),
)
EXAMPLES = 400
COLUMNS = ("model", "dataset", "alpha", "fault", "seed", "round", "accuracy", "rule", "right", "added_up")
RULES = ("suspicion", "toward", "alike", "against", "cosine", "unlike", "removal")
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
    """Measure what is not in OUT/rows.csv yet, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with mnist and cifar10 in hub layout")
    parser.add_argument("out", type=Path, help="folder of what is measured")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--models", nargs="+", choices=("cnn", "norm"), default=["cnn", "norm"])
    parser.add_argument("--datasets", nargs="+", choices=("mnist", "cifar10"), default=["mnist", "cifar10"])
    parser.add_argument("--alphas", type=float, nargs="+", default=[0.7])
    parser.add_argument("--faults", nargs="+", choices=tuple(FAULTS), default=list(FAULTS))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    rows = options.out / "rows.csv"
    if not rows.exists():
        rows.write_text(",".join(COLUMNS) + "\n")
    with rows.open(newline="") as file:
        done = {tuple(row[name] for name in COLUMNS[:5]) for row in csv.DictReader(file)}
    wanted = [
        (model, dataset, str(alpha), fault, str(seed))
        for seed in options.seeds
        for dataset in options.datasets
        for model in options.models
        for alpha in options.alphas
        for fault in options.faults
    ]
    for setting in wanted:
        if setting not in done:
            found = list(measure(*setting, options.data.resolve()))
            with rows.open("a", newline="") as file:
                csv.DictWriter(file, COLUMNS).writerows(found)
    with rows.open(newline="") as file:
        (options.out / "confusion.md").write_text(table(list(csv.DictReader(file))))
    sys.stdout.write((options.out / "confusion.md").read_text())


def measure(name: str, dataset: str, alpha: str, fault: str, seed: str, data: Path) -> Iterator[dict[str, object]]:
    """Train a federation, and yield a row for each round that counts and each rule."""
    setting = {"model": name, "dataset": dataset, "alpha": alpha, "fault": fault, "seed": seed}
    with tempfile.TemporaryDirectory() as folder:
        thin(data / dataset, Path(folder) / "data", CLIENTS * EXAMPLES)
        keys = (f"dataset={dataset}", f"dataset.path={folder}/data", f"seed={seed}", f"dirichlet_alpha={alpha}")
        with initialize_config_module("tracefl.conf", version_base=None):
            cfg = compose("base", [*KEYS, *keys, *FAULTS[fault], "fault.min_examples=60"])
        settings = read_settings(cfg)
        prepared = prepare_run(settings)
    assert prepared.fault is not None
    fault_made = prepared.fault.truth
    added: dict[str, Tensor] = {}
    for model, record in rounds(settings, prepared, name == "norm"):
        accuracy = evaluate(model, prepared.data.server).accuracy
        for rule, suspicions in suspicions_of(model, record, prepared, fault_made).items():
            added[rule] = added.get(rule, torch.zeros(CLIENTS, dtype=torch.float64)) + standardized(suspicions)
            faulty = fault_made.faulty(tuple(record.clients), record.server_round)
            right = [score_suspicions(each, faulty).localization_accuracy for each in (suspicions, added[rule])]
            yield setting | {
                "round": record.server_round,
                "accuracy": accuracy,
                "rule": rule,
                "right": right[0],
                "added_up": right[1],
            }


def rounds(settings: Settings, prepared: Prepared, normalised: bool) -> Iterator[tuple[nn.Module, RoundRecord]]:
    """Yield each round and the model that holds its average."""
    assert prepared.fault is not None
    clients = {**prepared.data.clients, **prepared.fault.examples}
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(settings.seed, "model"))
        model = Small(normalised)
    total = sum(len(examples) for examples in clients.values())
    p = {k: len(examples) / total for k, examples in clients.items()}
    for server_round in range(1, ROUNDS + 1):
        start = {n: t.clone() for n, t in model.state_dict().items()}
        states = {}
        for client_id, examples in clients.items():
            model.load_state_dict(start)
            train(model, examples, settings.training, derive_seed(settings.seed, "train", server_round, client_id))
            states[client_id] = {n: t.clone() for n, t in model.state_dict().items()}
        average = {
            n: sum((p[k] * state[n].double() for k, state in states.items()), torch.zeros(())).to(t.dtype)
            if t.is_floating_point()
            else t
            for n, t in start.items()
        }
        model.load_state_dict(average)
        yield model.eval(), RoundRecord(server_round, states, p, start, average)


def suspicions_of(model: nn.Module, record: RoundRecord, prepared: Prepared, fault: Fault) -> Mapping[str, Tensor]:
    """Return each rule's ``(K,)`` suspicions of a round; none where nothing is mispredicted as the fault wants."""
    server = fault.inputs(prepared.data.server)
    predicted = evaluate(model, server).predicted
    misled = torch.nonzero(fault.misled(server.labels, predicted)).flatten()
    if not len(misled):
        return {}
    found = confusions(model, record, *server.batch(torch.arange(len(server))))
    pairs = torch.stack((server.labels[misled], predicted[misled])).unique(dim=1)
    inputs, labels = server.batch(misled)
    products = sum(
        (block @ block.t() for _, _, block in update_blocks(model, record, PLACE)),
        torch.zeros(CLIENTS, CLIENTS, dtype=torch.float64),
    )
    parts = {
        "suspicion": found.suspicion,
        "toward": standardized(found.toward).unsqueeze(1).expand_as(found.push),
        "alike": standardized(found.alike),
        "against": standardized(found.against).unsqueeze(1).expand_as(found.push),
    }
    return {name: part[:, pairs[0], pairs[1]].mean(dim=1) for name, part in parts.items()} | {
        "cosine": 1 - cosines_with_others(products),
        "unlike": attribute_round(model, record, inputs, labels, Method.unlike()).contributions.double().mean(dim=0),
        "removal": removal_effects(model, record, inputs).mean(dim=0),
    }


def table(rows: Sequence[Mapping[str, str]]) -> str:
    """Return how often each rule is right, in % of the rounds that count, and added up over rounds."""
    places = sorted({(r["model"], r["dataset"], r["alpha"], r["fault"]) for r in rows}, key=str)
    lines = [
        "Rounds in which the faulty client is suspected most, in %; in brackets, added up, at the last round.",
        "",
        *head(["model", "data", "alpha", "fault", "seeds", "rounds", "chance", *RULES]),
    ]
    for place in places:
        of = [r for r in rows if (r["model"], r["dataset"], r["alpha"], r["fault"]) == place]
        seeds = {r["seed"] for r in of}
        counted = {(r["seed"], r["round"]) for r in of}
        cells = []
        for rule in RULES:
            mine = [r for r in of if r["rule"] == rule]
            last = {r["seed"]: float(r["added_up"]) for r in mine}  # of each seed's last round
            right = sum(float(r["right"]) for r in mine) / len(mine)
            cells.append(f"{100 * right:.0f} ({100 * sum(last.values()) / len(last):.0f})")
        lines.append(line([*place, str(len(seeds)), str(len(counted)), f"{100 / CLIENTS:.0f}", *cells]))
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
