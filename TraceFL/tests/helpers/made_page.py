"""Folders of runs with recorded rounds and traced inputs, made by hand: nothing is trained."""

import json
import math
import random
import time
from dataclasses import replace

import torch
from omegaconf import OmegaConf

from tests.helpers.configuration import compose_config
from tests.helpers.finished import finish
from tests.helpers.stored_runs import TEXTS
from tracefl.conf.cli import command_line
from tracefl.experiment.settings import read_settings
from tracefl.learning.datasets import save_examples
from tracefl.learning.examples import Examples
from tracefl.learning.models import build_text_encoder
from tracefl.provenance import RoundRecord, StandOuts, TracedInput, summarize
from tracefl.questions.stand_outs import add_round
from tracefl.records.checksums import seal
from tracefl.records.result import RoundResult
from tracefl.records.store import RoundStore
from tracefl.records.tables import ROUND_COLUMNS, SUSPECT_COLUMNS

NAMES = ("ant", "<script>window.hacked = true</script>", 'c"at & co', "dog")
COUNTS = [[9, 0, 0, 4], [1, 1, 1, 1], [0, 7, 0, 2], [0, 0, 5, 6], [3, 0, 0, 0]]
WEIGHTS = {"0": 0.5, "2": 0.3, "3": 0.2}
HARDWARE = {
    "versions": {"tracefl": "0.1.0", "torch": "2.15.0"},
    "hardware": {
        "device": "cpu",
        "gpu": None,
        "processor": "x86_64",
        "cpus": 2,
        "torch_threads": 1,
        "system": "Linux",
    },
    "server_peak_memory_bytes": 2_000_000_000,
}
FAULT = {
    "name": "label_flip",
    "clients": ["2"],
    "from_round": 1,
    "flips": {"1": 0},
    "target": None,
    "trigger": None,
    "share": 1.0,
    "scale": None,
    "changes": [
        {
            "client": "2",
            "examples": 9,
            "changeable": 7,
            "changed": 7,
            "label_counts": [0, 7, 0, 2],
            "faulty_label_counts": [7, 0, 0, 2],
        }
    ],
}


def traced_input(index, label=0, predicted=None, scores=None, expected=("0",), **more):
    """Return a traced input; ``scores``: client to score, highest first, whose logarithm is its contribution."""
    ranking = tuple((scores or {"0": 0.6, "2": 0.3, "3": 0.1}).items())
    first = ranking[0][0]
    given = {
        "input_index": index,
        "label": label,
        "predicted": label if predicted is None else predicted,
        "traced_client": first,
        "expected_clients": tuple(expected),
        "localized": first in expected if expected else None,
        "score": ranking[0][1],
        "ranking": ranking,
        "chance": len(expected) / len(ranking) if expected else None,
        "top_holder": None,
        "counterfactual_client": first,
        "counterfactual_correlation": 1.0,
        "contributions": tuple((client, math.log(score) if score else -math.inf) for client, score in ranking),
    }
    return TracedInput(**(given | more))


def result(server_round, traced=(), suspects=(), dropped=None, weights=WEIGHTS, mitigation=(), **row):
    """Return a round's result; ``row``: what differs in its row."""
    means = summarize(tuple(traced))
    measured = {
        "round": server_round,
        "global_loss": 1.5,
        "global_accuracy": 0.5,
        "localization_accuracy": means.localization_accuracy,
        "chance_accuracy": means.chance_accuracy,
        "inputs_traced": len(traced),
        "clients": len(weights),
        "clients_dropped": len(dropped or {}),
        "train_seconds": 2.0,
        "evaluate_seconds": 0.5,
        "provenance_seconds": 0.25,
        "counterfactual_seconds": 0.25,
    }
    whole = dict.fromkeys(ROUND_COLUMNS) | measured | row
    return RoundResult(whole, tuple(traced), tuple(suspects), weights, dropped or {}, tuple(mitigation))


def suspects_row(server_round, ranking="2:3 0:1 3:0", inputs=4, faulty="2", whole=1.0):
    """Return provenance's row of suspects.csv."""
    row = {"round": server_round, "rule": "provenance", "inputs": inputs, "ranking": ranking, "faulty_clients": faulty}
    row |= {"whole_localization": whole, "localization_accuracy": whole, "chance_accuracy": 1 / 3, "seconds": 0.1}
    return dict.fromkeys(SUSPECT_COLUMNS) | row | {"clients": 3, "note": ""}


def with_suspicions(results, suspicions, false_alarms=0.01):
    """Return rounds with how far clients stand out in each, and what that adds up to."""
    added = StandOuts(false_alarms)
    return [
        replace(each, class_suspicions=found, stand_outs=add_round(added, each.server_round, found))
        for each, found in zip(results, suspicions, strict=True)
    ]


def make_run(
    folder,
    results,
    *overrides,
    kind="image",
    size=8,
    examples=4,
    state="done",
    fault=None,
    error=None,
    counts=COUNTS,
    names=NAMES,
):
    """Write a run's folder; returns it.

    Args:
        folder: Where it is made, under the name ``a<b>&"run"``.
        results: Its rounds.
        overrides: Of its configuration.
        kind: ``image`` or ``text``.
        size: Side of the images.
        examples: How many the server has at least; more where inputs are traced that come later.
        state: As in status.json.
        fault: As in fault.json.
        error: As in status.json.
        counts: Training examples of each class, a row for each client.
        names: Of the classes.
    """
    of_kind = ("model=gpt", "dataset=synthetic_text", "model.pretrained=false") if kind == "text" else ()
    cfg = compose_config(
        *of_kind, f"log_dir={folder}", f"num_clients={len(counts)}", f"num_rounds={max(1, len(results))}", *overrides
    )
    examples = max(examples, *(1 + t.input_index for each in results for t in each.traced), 1)
    run = folder / 'a<b>&"run"'
    run.mkdir()
    (run / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(OmegaConf.to_container(cfg, resolve=True))))
    (run / "command.txt").write_text(command_line(overrides) + "\n")
    (run / "label_counts.json").write_text(json.dumps({"label_names": names, "label_counts": counts}))
    labels, numbers = torch.arange(examples) % len(names), torch.arange(examples)
    if kind == "text":
        encoder = build_text_encoder(read_settings(cfg).model, TEXTS)
        encoder.save(run / "tokenizer")
        server = Examples(encoder.encode([TEXTS[n % 4] for n in range(examples)], 12), labels, numbers)
    else:
        generator = torch.Generator().manual_seed(7)
        pixels = torch.randint(256, (examples, 3, size, size), generator=generator, dtype=torch.uint8)
        pixels[0] = pixels[0, :1]  # a grey one
        server = Examples({"pixels": pixels}, labels, numbers, (0.5,) * 3, (0.5,) * 3)
    save_examples(run / "server.safetensors", server)
    if fault is not None:
        (run / "fault.json").write_text(json.dumps(fault))
    store = RoundStore(run / "rounds")
    weights = {"w": torch.zeros(1)}
    for each in results:
        p = each.client_weights
        store.commit(each, RoundRecord(each.server_round, dict.fromkeys(p, weights), p, weights, weights))
    status = {"state": state, "rounds_done": len(results), "num_rounds": max(1, len(results)), "seconds": 40.0}
    status |= {"seconds_a_round": None, "updated": time.time(), "error": error}
    (run / "status.json").write_text(json.dumps(status))
    seal(run)
    if state == "done" and results:
        finish(run, max(1, len(results)), **HARDWARE, seconds=40.0)
    return run


def make_hundred_clients(folder, rounds=10, clients_per_round=30, inputs=50, classes=10):
    """Write the folder of a run of a hundred clients, with contributions and exact effects by chance; returns it."""
    chance = random.Random(7)
    counts = [[chance.choice((0, 0, 5, 30, 90)) for _ in range(classes)] for _ in range(100)]
    results = []
    for number in range(1, rounds + 1):
        ids = [str(client) for client in sorted(chance.sample(range(100), clients_per_round))]
        traced = [_traced_by_chance(chance, index, ids, classes) for index in range(inputs)]
        accuracy = chance.random()
        results.append(result(number, traced, weights=dict.fromkeys(ids, 1 / len(ids)), global_accuracy=accuracy))
    names = [f"class {number}" for number in range(classes)]
    return make_run(folder, results, counts=counts, names=names, size=28, examples=inputs)


def _traced_by_chance(chance, index, ids, classes):
    contributions = dict(sorted(((client, chance.gauss(0, 0.3)) for client in ids), key=lambda pair: -pair[1]))
    total = sum(map(math.exp, contributions.values()))
    scores = {client: math.exp(value) / total for client, value in contributions.items()}
    effects = tuple((client, value + chance.gauss(0, 0.05)) for client, value in contributions.items())
    return traced_input(
        index,
        index % classes,
        predicted=(index + chance.choice((0, 0, 1))) % classes,
        scores=scores,
        expected=tuple(ids[:7]),
        contributions=tuple(contributions.items()),
        effects=effects,
        counterfactual_client=max(effects, key=lambda pair: pair[1])[0],
        probability=chance.random(),
    )
