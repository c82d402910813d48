"""A run in miniature: a tiny model of the same family, few clients, two rounds, and data available locally.

Everything else stays as it is: the experiment file, alpha, noise and clipping, the fault (in more clients), how
predictions are traced, what is kept.
"""

import os
from pathlib import Path

from tracefl.common.paths import expand
from tracefl.errors import ConfigError
from tracefl.learning.datasets.settings import DatasetSettings
from tracefl.learning.faults.words import faulty_clients
from tracefl.paper.runs import Overrides
from tracefl.records.settings import Settings

TINY_MODELS: dict[str, Overrides] = {
    "resnet18": ("model.config.layers=[1,1,1,1]",),
    "densenet121": (
        "model.config.growth_rate=4",
        "model.config.block_config=[1,1,1,1]",
        "model.config.num_init_features=8",
    ),
    "gpt": ("model.config.n_layer=1", "model.config.n_embd=16", "model.config.n_head=2"),
    "bert": (
        "model.config.num_hidden_layers=1",
        "model.config.hidden_size=16",
        "model.config.num_attention_heads=2",
        "model.config.intermediate_size=32",
    ),
}
_SMALL: Overrides = (
    "model.pretrained=false",
    "model.tokenizer_vocab=300",
    "num_rounds=2",
    "batch_size=8",
    "client.epochs=1",
    "dataset.max_examples_per_client=16",
    "dataset.max_server_examples=32",
    "dataset.min_examples_per_label=1",
    "dataset.max_tokens=16",
    "total_cpus=1",
    "client_resources.cpus=1",
)
_STAND_INS = {"image": "digits", "text": "synthetic_text"}


def data_root() -> Path | None:
    """Return the folder of local data sets that the environment variable DATA_ROOT names; None if it names none.

    Raises:
        ConfigError: The variable names no folder.
    """
    given = os.environ.get("DATA_ROOT")
    if not given:
        return None
    root = expand(given).resolve()
    if not root.is_dir():
        raise ConfigError(f"DATA_ROOT={given!r} is not a folder; give one that holds mnist/, pathmnist.npz, ...")
    return root


def miniature(settings: Settings, root: Path | None) -> tuple[Overrides, str]:
    """Return the overrides that make a run small, and a description of the data that it then uses.

    Args:
        settings: The run's settings at its real size.
        root: Folder of local data: ``NAME/`` with parquet files, or MedMNIST's ``NAME.npz``.
    """
    data, words = _data(settings.dataset, root)
    # 200 to 1,000 clients, and 10 to 50 of them a round, stay different; where all take part, all still do.
    num_clients = max(6, settings.num_clients // 50)
    all_take_part = settings.clients_per_round == settings.num_clients
    a_round = num_clients if all_take_part else max(2, settings.clients_per_round // 10)
    clients = (f"num_clients={num_clients}", f"clients_per_round={a_round}")
    return (*_SMALL, *clients, *_fault(settings), *TINY_MODELS[settings.model.name], *data), words


def _fault(settings: Settings) -> Overrides:
    """Make so small a model mispredict as the fault intends; otherwise nothing is traced and no rule is tried."""
    faulty = faulty_clients(settings.fault)
    if not faulty:
        return ()
    # Ten clients: three faulty ones among fewer would be too many for Krum.
    clients = ("num_clients=10", "clients_per_round=10", "fault.clients=null", f"fault.num_clients={max(3, faulty)}")
    return (*clients, "fault.min_examples=1", "client.lr=0.1")


def _data(dataset: DatasetSettings, root: Path | None) -> tuple[Overrides, str]:
    name = dataset.name
    if root is not None and dataset.source == "hub" and any((root / name).rglob("*.parquet")):
        return (f'dataset.path="{root / name}"',), f"{name} of DATA_ROOT"
    if root is not None and dataset.source == "medmnist" and (root / f"{name}.npz").is_file():
        return (f'dataset.root="{root}"',), f"{name} of DATA_ROOT"
    stand_in = _STAND_INS[dataset.kind]
    return (f"dataset={stand_in}", "dataset.path=null", "dataset.root=null"), f"{stand_in} in place of {name}"
