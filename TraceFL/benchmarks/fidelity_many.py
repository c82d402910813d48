"""How well an answer tells what leaving a client out does, and at what price, with 10, 30 and 100 clients a round.

    python TraceFL/benchmarks/fidelity_many.py DATA OUT [--seeds 1 2] [--models resnet18] [--clients 10 30 100]

What fidelity.py asks of whole runs, this asks of one round with many clients, in the memory of one of them. Clients of
different sizes train for one epoch of a few batches on 32-pixel images (Dirichlet 0.3, random initial weights): first
ten of them a round for some rounds, then all from the same global weights, each into a safetensors file. A round of K
is the average of the first K. 50 inputs are asked about; seconds are the process's CPU time on one thread. OUT/rows.csv
is written setting by setting, and the same command goes on where it was; OUT/many.md is made of it.
"""

import argparse
import csv
import resource
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from fidelity import choose, thin
from fidelity_methods import CPU, METHODS, Answer, Question, first_is
from fidelity_table import both, head, line, median_cost
from hydra import compose, initialize_config_module
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tracefl.common.seeds import derive_seed
from tracefl.experiment.preparation import prepare_run
from tracefl.experiment.settings import read_settings
from tracefl.learning.examples import Examples
from tracefl.learning.models import initial_model
from tracefl.learning.training import evaluate, train
from tracefl.provenance import RoundRecord, removal_effects, spearman
from tracefl.provenance.budget import num_proven
from tracefl.provenance.inputs import read_batch
from tracefl.provenance.removal import logits_under
from tracefl.records.settings import Settings

MODELS: dict[str, tuple[str, int, tuple[str, ...]]] = {
    "resnet18": ("mnist", 128, ("+model.config.layers=[1,1,1,1]",)),
    "densenet121": ("mnist", 64, ()),
}
"""Data set, examples of a client on average, and keys: a block a stage makes ResNet's 100 files 2 GB instead of 4.5."""
SPARE = 1.3
WARM_UP_ROUNDS = 4
WARM_UP_CLIENTS = 10
KEYS = (
    "provenance=off",
    "model.pretrained=false",
    "client.epochs=1",
    "batch_size=16",
    "dirichlet_alpha=0.3",
    "dataset.image_size=32",
    "dataset.min_examples_per_label=1",
    "dataset.max_examples_per_client=100000",
    "dataset.max_server_examples=500",
)
ASKED = (
    *("leave_one_out", "removal (default)", "removal, verify=3", "removal, verify=1", "removal, verify=0"),
    *("artifact", "paper", "random"),
)
COLUMNS = (
    *("model", "dataset", "seed", "clients", "accuracy", "method", "agreement", "correlation"),
    *("seconds", "exact_seconds", "forward_seconds", "peak_gib"),
)


class ClientFiles(Mapping[str, Mapping[str, Tensor]]):
    """Clients' weights in files, each read when it is looked up."""

    def __init__(self, files: Mapping[str, Path]) -> None:
        self._files = files

    def __getitem__(self, client_id: str) -> Mapping[str, Tensor]:
        return load_file(self._files[client_id])

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


def main() -> None:
    """Measure what is not in OUT/rows.csv yet, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with mnist in hub layout")
    parser.add_argument("out", type=Path, help="folder of what is measured")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--models", nargs="+", choices=tuple(MODELS), default=list(MODELS))
    parser.add_argument("--clients", type=int, nargs="+", default=[10, 30, 100])
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    rows = options.out / "rows.csv"
    done = set()
    if rows.exists():
        with rows.open() as file:
            done = {(r["model"], int(r["seed"])) for r in csv.DictReader(file)}
    else:
        rows.write_text(",".join(COLUMNS) + "\n")
    for seed in options.seeds:
        for model in options.models:
            if (model, seed) not in done:
                found = list(measure(model, seed, options.data.resolve(), options.clients))
                with rows.open("a", newline="") as file:
                    csv.DictWriter(file, COLUMNS).writerows(found)
    with rows.open() as file:
        (options.out / "many.md").write_text(table(list(csv.DictReader(file))))
    sys.stdout.write((options.out / "many.md").read_text())


def measure(name: str, seed: int, data: Path, counts: Sequence[int]) -> Iterator[dict[str, object]]:
    """Train a model's clients, and yield a row for every number of them and every method."""
    with tempfile.TemporaryDirectory() as folder:
        for record, model, server in rounds(name, seed, data, counts, Path(folder)):
            for row in ask(record, model, server, seed, {method: METHODS[method] for method in ASKED}):
                yield {"model": name, "dataset": MODELS[name][0], "seed": seed} | row


def rounds(
    name: str, seed: int, data: Path, counts: Sequence[int], folder: Path
) -> Iterator[tuple[RoundRecord, nn.Module, Examples]]:
    """Yield a round of each number of clients, its global model and the server's examples; ``folder`` holds them."""
    dataset, examples, more = MODELS[name]
    most = max(counts)
    dealt = round(most * SPARE)  # some hold no full batch
    thin(data / dataset, folder / "data", dealt * examples)
    keys = (f"model={name}", f"dataset={dataset}", f"dataset.path={folder / 'data'}", f"seed={seed}")
    with initialize_config_module("tracefl.conf", version_base=None):
        cfg = compose("base", [*KEYS, *more, *keys, f"num_clients={dealt}", f"clients_per_round={most}"])
    settings = read_settings(cfg)
    prepared = prepare_run(settings)
    clients = {k: prepared.data.clients[k] for k in list(prepared.data.clients)[:most]}
    model = initial_model(settings.model, prepared.spec, derive_seed(seed, "model"))
    start = {n: t.clone() for n, t in model.state_dict().items()}
    sizes = {k: len(examples) for k, examples in clients.items()}
    for server_round in range(1, WARM_UP_ROUNDS + 1):
        generator = torch.Generator().manual_seed(derive_seed(seed, "draw", server_round))
        drawn = [list(clients)[k] for k in torch.randperm(most, generator=generator).tolist()[:WARM_UP_CLIENTS]]
        files = _train(model, start, {k: clients[k] for k in drawn}, settings, server_round, folder)
        start = average(files, shares(sizes, list(files)), start)
    everyone = _train(model, start, clients, settings, WARM_UP_ROUNDS + 1, folder)
    for count in counts:
        p = shares(sizes, list(everyone)[:count])
        files = ClientFiles({k: everyone[k] for k in p})
        record = RoundRecord(WARM_UP_ROUNDS + 1, files, p, start, average({k: everyone[k] for k in p}, p, start))
        model.load_state_dict(record.global_weights)
        yield record, model.eval(), prepared.data.server


def _train(
    model: nn.Module,
    start: Mapping[str, Tensor],
    clients: Mapping[str, Examples],
    settings: Settings,
    server_round: int,
    folder: Path,
) -> dict[str, Path]:
    """Train each client from the same weights, into a file each."""
    files = {}
    for client_id, examples in clients.items():
        model.load_state_dict(start)
        train(model, examples, settings.training, derive_seed(settings.seed, "train", server_round, client_id))
        files[client_id] = folder / f"{client_id}.safetensors"
        save_file({n: t.contiguous() for n, t in model.state_dict().items()}, files[client_id])
    return files


def shares(sizes: Mapping[str, int], clients: Sequence[str]) -> dict[str, float]:
    """Return each client's share of the examples of these clients."""
    total = sum(sizes[k] for k in clients)
    return {k: sizes[k] / total for k in clients}


def average(files: Mapping[str, Path], p: Mapping[str, float], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the clients' weighted average, one of them in memory at a time; counters stay those of ``like``."""
    total = {name: torch.zeros(t.shape, dtype=torch.float64) for name, t in like.items() if t.is_floating_point()}
    for client_id, file in files.items():
        weights = load_file(file)
        for name, sums in total.items():
            sums.add_(weights[name], alpha=p[client_id])
    return dict(like) | {name: sums.to(like[name].dtype) for name, sums in total.items()}


def ask(
    record: RoundRecord, model: nn.Module, server: Examples, seed: int, methods: Mapping[str, Answer]
) -> Iterator[dict[str, object]]:
    """Yield what every method says of a round, compared with the exact removals."""
    found = evaluate(model, server)
    chosen = choose(server, found.predicted)
    inputs, labels = server.batch(chosen)
    question = Question(model, record, inputs, labels, found.predicted[chosen], seed)
    began = time.process_time()
    effects = removal_effects(model, record, inputs)
    exact_seconds = time.process_time() - began
    with torch.no_grad():
        batch = read_batch(model, inputs, CPU)
        began = time.process_time()
        logits_under(model, record.global_weights, batch, len(chosen), CPU)
        forward_seconds = time.process_time() - began
    for name, method in methods.items():
        began = time.process_time()
        answer = method(question).double().expand(len(labels), -1)
        yield {
            "clients": len(record.clients),
            "accuracy": found.accuracy,
            "method": name,
            "agreement": first_is(answer, effects == effects.max(dim=1, keepdim=True).values),
            "correlation": float(spearman(answer, effects).mean()),
            "seconds": time.process_time() - began,
            "exact_seconds": exact_seconds,
            "forward_seconds": forward_seconds,
            "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        }


def table(rows: Sequence[Mapping[str, str]]) -> str:
    """Return agreement, rank correlation and time of every method, by model and number of clients."""
    places = sorted({(r["model"], r["dataset"], int(r["clients"])) for r in rows})
    lines = ["Agreement in % / rank correlation / time as a fraction of the exact removals'.", ""]
    lines += head(["method", *(f"{model}, {dataset}, {clients} clients" for model, dataset, clients in places)])
    for method in ASKED:
        cells = []
        for place in places:
            of = [r for r in rows if (r["model"], r["dataset"], int(r["clients"]), r["method"]) == (*place, method)]
            cells.append(f"{both(of)} / {median_cost(of):.2f}" if of else "NA")
        lines.append(line([f"`{method}`", *cells]))
    return "\n".join([*lines, "", *costs(rows)]) + "\n"


def costs(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """Return what the letters of tracefl/provenance/budget.py are, by model, seed and number of clients."""
    lines = ["An attribution (a) and reading a client (r) in forward passes; up to whom all removals cost no more:", ""]
    lines += head(["model", "seed", "clients", "a", "r", "break-even"])
    for row in rows:
        if row["method"] == "removal, verify=0":
            forward, count = float(row["forward_seconds"]), int(row["clients"])
            reading = (float(row["exact_seconds"]) / forward - count - 1) / (2 * count)
            attribution = float(row["seconds"]) / forward - count * reading
            proven = num_proven(count)
            even = (attribution + proven + proven * reading) / (1 + reading)
            numbers = [f"{attribution:.1f}", f"{reading:.2f}", f"{even:.1f}"]
            lines.append(line([row["model"], row["seed"], row["clients"], *numbers]))
    return lines


if __name__ == "__main__":
    main()
