"""How well each attribution tells what leaving a client out does: all methods, models, data sets and seeds, one table.

    python TraceFL/benchmarks/fidelity.py DATA OUT [--seeds 1 2 3] [--models resnet18 gpt] [--datasets mnist dbpedia_14]
        [--alphas 0.3] [--clients 100]

Trains every setting with tracefl run (10 clients a round, drawn from 20; random initial weights), asks every method
about 50 inputs of an early and of the last round, and compares with the exact removal. DATA holds mnist, cifar10 and
dbpedia_14 in hub layout; a part of their training examples is dealt to the clients, which differ in size. OUT/rows.csv
is written setting by setting, and the same command goes on where it was; OUT/table.md is made of it. Two settings at a
time, one thread each; seconds are the process's CPU time. The methods that follow each client's path are asked in the
first seed only, and with other numbers of clients than 10 neither they nor an early round, whose weights are not kept
then.
"""

import argparse
import csv
import logging
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from itertools import product
from multiprocessing import get_context
from pathlib import Path

import torch
from fidelity_methods import BY_PATH, METHODS, OF_BATCH_NORM, Question, first_is
from fidelity_table import table
from pyarrow import concat_tables
from pyarrow.parquet import read_table, write_table
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from tracefl.learning.examples import Examples
from tracefl.learning.training import evaluate
from tracefl.provenance import removal_effects, spearman
from tracefl.questions.baselines import NotApplicableError
from tracefl.records.run import StoredRun

INPUTS = 50
ALPHAS = (0.1, 0.3, 1.0)
_IMAGES = {
    "resnet18": ("model=resnet18", "num_rounds=4"),
    "densenet121": ("model=densenet121", "num_rounds=4"),
}
_TEXTS = {
    "gpt": ("model=gpt", "model.config.n_layer=2", "model.config.n_embd=128", "model.config.n_head=4"),
    "bert": (
        "model=bert",
        "model.config.num_hidden_layers=2",
        "model.config.hidden_size=128",
        "model.config.num_attention_heads=4",
        "model.config.intermediate_size=512",
    ),
}
_TEXT_KEYS = ("client.lr=0.001", "dataset.max_tokens=48", "num_rounds=5")
MODELS = {
    **{(name, data): keys for name, keys in _IMAGES.items() for data in ("mnist", "cifar10")},
    **{(name, "dbpedia_14"): (*keys, *_TEXT_KEYS) for name, keys in _TEXTS.items()},
}
EXAMPLES = {"resnet18": 128, "densenet121": 64, "gpt": 192, "bert": 192}
"""Of a client, on average."""
FEW = 10
COMMON = (
    "provenance=off",
    "model.pretrained=false",
    "client.epochs=1",
    "batch_size=16",
    "dataset.min_examples_per_label=1",
    "dataset.max_examples_per_client=100000",
    "dataset.max_server_examples=1000",
    "total_cpus=1",
)
Setting = tuple[str, str, float, int]  # model, data set, alpha, seed
COLUMNS = (
    *("model", "dataset", "alpha", "seed", "clients", "round", "accuracy", "method", "inputs", "correct", "agreement"),
    *("correlation", "top_holder", "localization", "chance", "seconds", "exact_seconds"),
)


def main() -> None:
    """Measure what is not in OUT/rows.csv yet, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with mnist, cifar10 and dbpedia_14")
    parser.add_argument("out", type=Path, help="folder of what is measured")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--models", nargs="+", choices=sorted({model for model, _ in MODELS}))
    parser.add_argument("--datasets", nargs="+", choices=sorted({data for _, data in MODELS}))
    parser.add_argument("--alphas", type=float, nargs="+", default=ALPHAS)
    parser.add_argument("--clients", type=int, default=FEW)
    options = parser.parse_args()
    data, out, seeds = options.data.resolve(), options.out.resolve(), options.seeds
    out.mkdir(parents=True, exist_ok=True)
    rows = out / "rows.csv"
    done = keep_whole(rows, options.clients)
    models = [
        (model, dataset)
        for model, dataset in MODELS
        if model in (options.models or [model]) and dataset in (options.datasets or [dataset])
    ]
    settings = [(*model, alpha, seed) for seed, alpha, model in product(seeds, options.alphas, models)]
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as workers:
        waiting = {
            workers.submit(measure, s, data, out, s[3] == seeds[0], options.clients): s
            for s in settings
            if s not in done
        }
        failed = 0
        for found in as_completed(waiting):
            name = " ".join(map(str, waiting[found]))
            try:
                measured = found.result()
            except subprocess.CalledProcessError as error:
                failed += 1
                sys.stderr.write(f"{name}: {error.stderr.decode().strip()}\n")
                continue
            with rows.open("a", newline="") as file:
                csv.DictWriter(file, COLUMNS).writerows(measured)
            sys.stdout.write(f"{time.strftime('%H:%M:%S')} {name}\n")
            sys.stdout.flush()
    with rows.open() as file:
        (out / "table.md").write_text(table(list(csv.DictReader(file)), tuple(METHODS)))
    sys.stdout.write((out / "table.md").read_text())
    sys.exit(f"{failed} of {len(settings)} settings failed" if failed else 0)


def keep_whole(rows: Path, clients: int) -> set[Setting]:
    """Drop what a killed run left of a setting, and return the settings that are there as a whole.

    Raises:
        SystemExit: The rows are of another number of clients.
    """
    last = list(METHODS)[-1]
    found: dict[Setting, list[dict[str, str]]] = {}
    if rows.exists():
        with rows.open() as file:
            for r in csv.DictReader(file):
                if r["clients"] != str(clients):
                    sys.exit(
                        f"{rows} is of {r['clients']} clients a round, and {clients} are asked for; name another OUT"
                    )
                found.setdefault((r["model"], r["dataset"], float(r["alpha"]), int(r["seed"])), []).append(r)
    whole = {s: of for s, of in found.items() if [r["method"] for r in of].count(last) == (2 if clients == FEW else 1)}
    with rows.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(r for of in whole.values() for r in of)
    return set(whole)


def thin(data: Path, to: Path, examples: int) -> None:
    """Write a data set with as many training examples as asked for, evenly spaced; the test examples are the same."""
    to.mkdir(parents=True)
    for split in ("train", "test"):
        everything = concat_tables([read_table(file) for file in sorted(data.glob(f"**/{split}*.parquet"))])
        wanted = min(examples, len(everything)) if split == "train" else len(everything)
        taken = torch.linspace(0, len(everything) - 1, wanted).round().long().tolist()
        write_table(everything.take(taken), to / f"{split}.parquet")


def measure(setting: Setting, data: Path, out: Path, first_seed: bool, clients: int) -> list[dict[str, object]]:
    """Train a setting, ask about an early and the last round, and delete the weights."""
    logging.disable()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    model, dataset, alpha, seed = setting
    name = f"{model}-{dataset}-{alpha}-{seed}"
    thinned = out / "runs" / f"{name}-data"
    shutil.rmtree(thinned, ignore_errors=True)
    thin(data / dataset, thinned, 2 * clients * EXAMPLES[model])
    keys = (*COMMON, *MODELS[model, dataset], f"dataset={dataset}", f"dataset.path={thinned}")
    keys = (*keys, f"num_clients={2 * clients}", f"clients_per_round={clients}")
    keys = (*keys, "store=all" if clients == FEW else "store=last")
    keys = (*keys, f"dirichlet_alpha={alpha}", f"seed={seed}", f"log_dir={out}", "exp_key=runs", f"run_name={name}")
    subprocess.run([sys.executable, "-m", "tracefl", "run", *keys, "overwrite=true"], check=True, capture_output=True)
    run = StoredRun(out / "runs" / name)
    last = run.settings.num_rounds
    found = []
    for server_round in (2, last) if clients == FEW else (last,):
        for row in ask(run, server_round, seed, first_seed and clients == FEW):
            found.append(dict(zip(COLUMNS, (*setting, clients, server_round), strict=False)) | row)
    shutil.rmtree(run.folder)
    shutil.rmtree(thinned)
    return found


def ask(run: StoredRun, server_round: int, seed: int, paths: bool) -> Iterator[dict[str, object]]:
    """Yield a row for every method that says something of the round."""
    model, record = run.round(server_round)
    server = run.server
    evaluation = evaluate(model, server)
    predicted = evaluation.predicted
    chosen = choose(server, predicted)
    inputs, labels = server.batch(chosen)
    question = Question(model, record, inputs, labels, predicted[chosen], seed)
    held = run.label_counts[[int(k) for k in record.clients]].t()[labels]  # (B, K)
    right = labels == question.predicted
    began = time.process_time()
    effects = removal_effects(model, record, inputs)
    exact_seconds = time.process_time() - began
    norms = any(isinstance(module, _BatchNorm) for module in model.modules())
    for name, method in METHODS.items():
        if (name in OF_BATCH_NORM and not norms) or (name in BY_PATH and not paths):
            continue
        began = time.process_time()
        try:
            answer = method(question).double().expand(len(labels), -1)
        except NotApplicableError:
            continue
        taken = time.process_time() - began
        yield {
            "accuracy": evaluation.accuracy,
            "method": name,
            "inputs": len(labels),
            "correct": int(right.sum()),
            "agreement": first_is(answer, effects == effects.max(dim=1, keepdim=True).values),
            "correlation": float(spearman(answer, effects).mean()),
            **paper_scores(answer[right], held[right]),
            "seconds": taken,
            "exact_seconds": exact_seconds,
        }


def choose(server: Examples, predicted: Tensor) -> Tensor:
    """Return the inputs that are asked about: correct predictions, evenly spaced; others where there are too few."""
    right = torch.nonzero(predicted == server.labels).flatten()
    wrong = torch.nonzero(predicted != server.labels).flatten()
    spaced = right[torch.linspace(0, len(right) - 1, min(INPUTS, len(right))).long()] if len(right) else right
    return torch.cat((spaced, wrong[: INPUTS - len(spaced)])).sort().values


def paper_scores(answer: Tensor, held: Tensor) -> dict[str, float | None]:
    """Return what correct predictions' first clients score by the paper's measure, beside chance; None without any."""
    if not len(answer):
        return {"top_holder": None, "localization": None, "chance": None}
    return {
        "top_holder": first_is(answer, held == held.max(dim=1, keepdim=True).values),
        "localization": first_is(answer, held > 0),
        "chance": float((held > 0).double().mean()),
    }


if __name__ == "__main__":
    main()
