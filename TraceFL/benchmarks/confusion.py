"""Who finds a client that was taught a confusion, where its kind is known and where it is not; who is named wrongly.

    python TraceFL/benchmarks/confusion.py DATA OUT [--seeds 1 2] [--models cnn ...] [--faults none ...] [--peers all]
        [--drawn 10 4] [--alphas 0.7]

Federations of ten clients, one epoch a round, 400 examples of a client on average, Dirichlet: images of 16 pixels, of
32 for DenseNet, or texts of 48 tokens; all take part in each of 5 rounds, or 4 drawn ones in each of 12. Client 0 is
faulty, or where it holds fewer than 60 examples that the fault can change, the one that holds the most; or all are
honest. Asked are 10 of each class of the server's 200 examples.

Who is first: of the runs in which all take part. A round counts where an example is mispredicted as the fault wants; a
rule is right where the client that it suspects most, over these confusions, each counted once, is the faulty one; a
rule that judges inputs, by the share of them, 12 at most. Added up: what a rule says of each round so far, brought to a
mean of 0 and a deviation of 1 over the clients. Seconds: of a round, CPU, one thread.

Who stands out: ``StandOuts`` over the rounds of a run, which is told nothing. A run counts as found where its faulty
client is named.

OUT/rows.csv and OUT/runs.csv are written run by run, and the same command goes on where it was; OUT/confusion.md is
made of both. The parts and weights of tracefl/provenance/confusion.py were chosen on seeds 101 to 104, the bar of
tracefl/provenance/standing_out.py on the honest runs of seeds 101, 102, 1 and 2; others are for reports.
"""

import argparse
import csv
import random
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from confusion_models import DATASETS, MODELS, make
from confusion_tables import SETTING, every_rule, who_is_first, who_stands_out
from fidelity import thin
from hydra import compose, initialize_config_module
from torch import Tensor, nn

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
    select_mispredicted,
    select_of_each_class,
)
from tracefl.provenance.confusion import standardized
from tracefl.questions.baselines import NEED_HISTORY, RULES, Evidence, NotApplicableError
from tracefl.records.settings import Settings

CLIENTS, OF_CLASS, MOST_INPUTS = 10, 10, 12
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
    *("client.epochs=1", "dataset.min_examples_per_label=1"),
    *("dataset.max_examples_per_client=100000", "dataset.max_server_examples=200"),
)
EXAMPLES = 400
ROW_COLUMNS = (*SETTING, "round", "accuracy", "rule", "right", "added_up", "chance", "seconds")
RUN_COLUMNS = (*SETTING, "accuracy", "counted", "total", "client", "toward", "since", "faulty", "faulty_total")
PEERS = {"fast": ("cosine", "removal"), "all": tuple(rule for rule in RULES if rule not in ("shapley", "random"))}
"""Which of the rules of tracefl/questions/baselines stand beside the suspicion: exact Shapley values take minutes."""


def main() -> None:
    """Measure what is not in OUT yet, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with mnist, cifar10 and dbpedia_14 in hub layout")
    parser.add_argument("out", type=Path, help="folder of what is measured")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["cnn", "norm"])
    parser.add_argument("--datasets", nargs="+", choices=("mnist", "cifar10"), default=["mnist", "cifar10"])
    parser.add_argument("--peers", choices=PEERS, default="fast")
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
        for model in options.models
        for dataset in DATASETS.get(model, options.datasets)
        for alpha in options.alphas
        for fault in options.faults
    ]
    for setting in wanted:
        if setting in done:
            continue
        try:
            found, run = measure(dict(zip(SETTING, setting, strict=True)), options.data.resolve(), PEERS[options.peers])
        except DataError as error:  # at alpha 0.1 a client may hold less than a batch
            sys.stderr.write(f"{' '.join(setting)}: {error}\n")
            continue
        with rows.open("a", newline="") as file:
            csv.DictWriter(file, ROW_COLUMNS).writerows(found)
        with runs.open("a", newline="") as file:
            csv.DictWriter(file, RUN_COLUMNS).writerow(run)
    text = "\n".join((*who_is_first(read(rows)), "", *every_rule(read(rows)), "", *who_stands_out(read(runs))))
    (options.out / "confusion.md").write_text(text + "\n")
    sys.stdout.write(text + "\n")


def read(path: Path) -> list[dict[str, str]]:
    """Return a table's rows."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def measure(
    setting: dict[str, str], data: Path, peers: tuple[str, ...]
) -> tuple[list[dict[str, object]], dict[str, object]]:
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
            least = ("fault.min_examples=60",) if fault_keys else ()
            cfg = compose("base", [*KEYS, *MODELS[setting["model"]], *keys, *fault_keys, *least])
        settings = read_settings(cfg)
        prepared = prepare_run(settings)
    fault = None if prepared.fault is None else prepared.fault.truth
    found: list[dict[str, object]] = []
    added: dict[str, Tensor] = {}
    standing, highest, faulty_highest, counted, accuracy = StandOuts(), None, 0.0, 0, 0.0
    history: list[RoundRecord] = []
    for model, record in rounds(settings, prepared, make(setting["model"], settings, prepared)):
        accuracy = evaluate(model, prepared.data.server).accuracy
        began = time.process_time()
        pushes = confusions(model, record, *of_each_class(prepared.data.server))
        asked = pushes, time.process_time() - began
        suspicions = class_suspicions(pushes)
        counted += bool(suspicions)
        for each in standing.add(record.server_round, suspicions):
            highest = each if highest is None or each.total > highest.total else highest
            if fault is not None and each.client_id in fault.clients:
                faulty_highest = max(faulty_highest, each.total)
        past = [lambda earlier=earlier: earlier for earlier in history]
        if NEED_HISTORY & set(peers):
            history.append(record)
        if fault is None or drawn < CLIENTS or record.server_round < fault.from_round:
            continue
        faulty = fault.faulty(tuple(record.clients), record.server_round)
        now = {"round": record.server_round, "accuracy": accuracy, "chance": float(faulty.double().mean())}
        for rule, values, seconds in suspicions_of(model, record, prepared, fault, asked, past, peers):
            if values is None:
                found.append({**setting, **now, "rule": rule, "right": "", "added_up": "", "seconds": ""})
                continue
            of_round = values if values.ndim == 1 else values.mean(dim=0)
            added[rule] = added.get(rule, torch.zeros(CLIENTS, dtype=torch.float64)) + standardized(of_round)
            right = [score_suspicions(some, faulty).localization_accuracy for some in (values, added[rule])]
            of_rule = {"rule": rule, "right": right[0], "added_up": right[1], "seconds": seconds}
            found.append({**setting, **now, **of_rule})
    run: dict[str, object] = {**setting, "accuracy": accuracy, "counted": counted, "faulty_total": faulty_highest}
    run["faulty"] = "" if fault is None else " ".join(fault.clients)
    if highest is not None:
        run |= {"total": highest.total, "client": highest.client_id, "toward": highest.toward, "since": highest.since}
    return found, run


def rounds(settings: Settings, prepared: Prepared, model: nn.Module) -> Iterator[tuple[nn.Module, RoundRecord]]:
    """Yield each round and the model that holds its average."""
    honest, fault = prepared.data.clients, prepared.fault
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
    model: nn.Module,
    record: RoundRecord,
    prepared: Prepared,
    fault: Fault,
    asked: tuple[Confusions, float],
    past: list[Callable[[], RoundRecord]],
    peers: tuple[str, ...],
) -> Iterator[tuple[str, Tensor | None, float | str]]:
    """Yield each rule, its ``(K,)`` suspicions of a round or ``(M, K)`` of its inputs, and its seconds.

    None where the rule does not apply; nothing of a round without mispredictions. ``asked`` is the confusions of the
    server's examples, and the seconds that they took.
    """
    server = fault.inputs(prepared.data.server)
    predicted = evaluate(model, server).predicted
    misled = fault.misled(server.labels, predicted)
    if not misled.any():
        return
    found, seconds = asked
    if server is not prepared.data.server:  # a trigger is in each
        began = time.process_time()
        found = confusions(model, record, *of_each_class(server))
        seconds = time.process_time() - began
    pairs = torch.stack((server.labels[misled], predicted[misled])).unique(dim=1)
    yield "suspicion", found.suspicion[:, pairs[0], pairs[1]].mean(dim=1), seconds
    chosen = select_mispredicted(misled, MOST_INPUTS)
    inputs, labels = server.batch(chosen)
    evidence = Evidence(
        record=record,
        model=model,
        inputs=inputs,
        predicted=predicted[chosen],
        seed=0,
        num_faults=len(fault.clients),
        history=past,
    )
    for rule in peers:
        began = time.process_time()
        try:
            values = RULES[rule](evidence)
        except NotApplicableError:
            yield rule, None, ""
        else:
            yield rule, values, time.process_time() - began
    began = time.process_time()
    unlike = attribute_round(model, record, inputs, labels, Method.unlike()).contributions
    yield "unlike", unlike.double().mean(dim=0), time.process_time() - began
    each = found.suspicion[:, labels, predicted[chosen]]  # (K, M)
    whole, without = logits_without(model, record, inputs)  # (M, C), (K, M, C)
    effects, i = whole - without, torch.arange(len(chosen))
    own = effects[:, i, predicted[chosen]] - effects[:, i, labels]
    yield "an input", each.t(), ""
    yield "own effect", own.t(), ""
    yield "input + own", (each + standardized(own) / 2).t(), ""


if __name__ == "__main__":
    main()
