"""A folder of a run whose rounds follow one another, made by hand: random updates, no training, no Flower."""

import json
from dataclasses import asdict

import torch
from omegaconf import OmegaConf

from tests.helpers.made_runs import FLIP as FAULT_KEYS
from tests.helpers.models import clients_near
from tests.helpers.stored_runs import make_stored_run
from tests.helpers.tables import whole_row
from tracefl.learning.datasets import save_examples
from tracefl.learning.examples import PIXELS, Examples
from tracefl.learning.faults import Fault
from tracefl.learning.models import ModelSpec, build_model
from tracefl.provenance import RoundRecord
from tracefl.records.checksums import seal
from tracefl.records.result import RoundResult
from tracefl.records.run import StoredRun
from tracefl.records.store import RoundStore

P = {"0": 0.5, "2": 0.3, "3": 0.2}
ROUNDS = ("023", "03", "02", "023")
"""Clients of each round; client 1 takes no part."""
FLIP = Fault("label_flip", ("2",), from_round=1, flips={1: 0, 3: 0}, share=1.0)


def make_replayed_run(folder, rounds=ROUNDS, fault=FLIP, keep="all"):
    """Write a run of FedAvg on an image model with BatchNorm; returns its folder and its records."""
    run = make_stored_run(folder, rounds=())
    if fault is not None:
        config = OmegaConf.load(run / "config.yaml")
        config.fault = FAULT_KEYS | {"from_round": fault.from_round}
        OmegaConf.save(config, run / "config.yaml")
        (run / "fault.json").write_text(json.dumps(asdict(fault) | {"changes": []}))
        seal(run)
    server = _server(StoredRun(run).server)
    save_examples(run / "server.safetensors", server)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        model = build_model(ModelSpec.from_json((run / "model.json").read_text()))
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = None
    model.train()(server.batch(torch.arange(40))[0])  # statistics of these images, so that what they give differs
    store, records = RoundStore(run / "rounds", keep=keep), []
    for number, ids in enumerate(rounds, 1):
        near = clients_near(model, num_clients=4, scale=0.05, seed=number)
        clients = {k: _loud(near[k], number + int(k)) for k in ids}
        total = sum(P[k] for k in ids)
        p = {k: P[k] / total for k in ids}
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        after = {
            name: sum(p[k] * clients[k][name].double() for k in ids).to(tensor)
            if tensor.is_floating_point()
            else tensor + 3
            for name, tensor in before.items()
        }
        model.load_state_dict(after)
        records.append(RoundRecord(number, clients, p, before, after))
        row = whole_row(round=number, global_accuracy=0.25)
        store.commit(RoundResult(row, (), (), p, {}), records[-1])
    seal(run)
    return run, records


def _loud(weights, seed):
    """A client with a head of its own, so that models differ in what they predict."""
    generator = torch.Generator().manual_seed(seed)
    head = torch.randn(weights["fc.weight"].shape, generator=generator)
    return {**weights, "fc.weight": head - head.mean(dim=1, keepdim=True)}


def _server(like):
    """Forty images of stripes and patches, so that one model predicts several classes."""
    generator = torch.Generator().manual_seed(11)
    coarse = torch.randint(2, (40, 3, 4, 4), generator=generator, dtype=torch.uint8) * 255
    pixels = coarse.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)
    return Examples({PIXELS: pixels}, torch.arange(40) % 4, torch.arange(40), like.mean, like.std)
