"""Folders of runs with stored weights, made by hand: random models, no training, no Flower."""

import json

import torch
from omegaconf import OmegaConf

from tests.helpers.configuration import compose_config
from tests.helpers.models import clients_near
from tests.helpers.tables import whole_row
from tracefl.experiment.settings import read_settings
from tracefl.learning.datasets import save_examples
from tracefl.learning.examples import Examples
from tracefl.learning.models import build_model, build_text_encoder, model_spec
from tracefl.provenance import RoundRecord
from tracefl.records.checksums import seal
from tracefl.records.result import RoundResult
from tracefl.records.store import RoundStore

P = {"0": 0.5, "2": 0.3, "3": 0.2}
"""Clients of the stored rounds, and their weights; client 1 takes no part."""

COUNTS = [[9, 0, 0, 4], [1, 1, 1, 1], [0, 7, 0, 2], [0, 0, 5, 6]]
NAMES = ["ant", "bee", "Cat", "dog"]
TEXTS = ["the sea is wide", "a garden of roses", "law and order", "the roses by the sea"]
SMALL = {
    "image": ("model=resnet18", "++model.config.layers=[1,1,1,1]", "dataset=digits", "dataset.image_size=16"),
    "text": (
        *("model=gpt", "++model.config.n_layer=1", "++model.config.n_embd=16", "++model.config.n_head=2"),
        *("model.tokenizer=trained", "model.tokenizer_vocab=300", "dataset=synthetic_text", "dataset.max_tokens=12"),
    ),
}


def make_stored_run(folder, kind="image", rounds=(1, 2)):
    """Write a run's folder of this kind with the weights of some rounds; returns it."""
    cfg = compose_config("model.pretrained=false", f"log_dir={folder}", "num_clients=4", *SMALL[kind])
    config = OmegaConf.to_container(cfg, resolve=True)
    settings = read_settings(cfg)
    run = folder / kind
    run.mkdir()
    (run / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(config)))
    (run / "label_counts.json").write_text(json.dumps({"label_names": NAMES, "label_counts": COUNTS}))
    encoder = build_text_encoder(settings.model, TEXTS) if kind == "text" else None
    spec = model_spec(settings.model, 4, encoder)
    (run / "model.json").write_text(spec.to_json())
    labels, numbers = torch.tensor([0, 1, 2, 3]), torch.arange(4)
    if encoder is not None:
        encoder.save(run / "tokenizer")
        server = Examples(encoder.encode(TEXTS, 12), labels, numbers)
    else:
        pixels = torch.randint(256, (4, 3, 16, 16), generator=torch.Generator().manual_seed(7), dtype=torch.uint8)
        server = Examples({"pixels": pixels}, labels, numbers, settings.dataset.mean, settings.dataset.std)
    save_examples(run / "server.safetensors", server)
    store = RoundStore(run / "rounds", keep="all")
    for server_round in rounds:
        with torch.random.fork_rng():
            torch.manual_seed(server_round)
            model = build_model(spec)
        clients = dict(zip(P, clients_near(model, seed=server_round).values(), strict=True))
        first = clients["0"]
        average = {
            name: sum(p * clients[k][name] for k, p in P.items()) if tensor.is_floating_point() else tensor
            for name, tensor in first.items()
        }
        record = RoundRecord(server_round, clients, P, model.state_dict(), average)
        row = whole_row(round=server_round, global_accuracy=server_round / 4)
        store.commit(RoundResult(row, (), (), P, {}), record)
    seal(run)
    return run
