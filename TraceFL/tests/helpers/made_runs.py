"""Folders of finished runs that looked for faulty clients, made by hand."""

import json
import time
from dataclasses import asdict

from omegaconf import OmegaConf

from tests.helpers.configuration import compose_config
from tests.helpers.finished import finish
from tests.helpers.round_files import write_rounds
from tests.helpers.tables import zero_row
from tracefl.records.checksums import seal
from tracefl.records.settings import read_keys
from tracefl.records.tables import SUSPECT_COLUMNS

SETTING = ("model=resnet18", "dataset=mnist", "num_rounds=2", "dirichlet_alpha=0.3", "clients_per_round=10")
FLIP = {
    "name": "label_flip",
    "clients": [0],
    "num_clients": None,
    "from_round": 1,
    "share": 1.0,
    "flip": None,
    "all_to": None,
    "min_examples": 50,
    "target": None,
    "trigger_size": None,
    "trigger_token": None,
    "scale": None,
}
NO_FAULT = dict.fromkeys(FLIP) | {"name": "none"}


def make_faulty_run(logs, suspects, *overrides, fault=FLIP, rounds=2, state="done"):
    """Write a run's folder; ``suspects`` are rows of suspects.csv, None for a run without any."""
    config = OmegaConf.to_container(compose_config(*SETTING, f"log_dir={logs}", *overrides), resolve=True)
    if fault is not None:
        config["fault"] = dict(fault)
    folder = read_keys(config).folder
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(config)))
    measured = {"global_accuracy": 0.5, "localization_accuracy": 0.9, "chance_accuracy": 0.1}
    made = [zero_row(**measured, round=n) for n in range(1, rounds + 1)]
    write_rounds(folder, made, suspects or ())
    status = {"state": state, "rounds_done": rounds, "num_rounds": rounds, "seconds": 9.0}
    status |= {"seconds_a_round": None, "updated": time.time(), "error": None}
    (folder / "status.json").write_text(json.dumps(status))
    seal(folder)
    if state == "done":
        finish(folder, rounds)
    return folder


def give_fault(run, fault):
    """Give a run's folder a fault: in its configuration and in fault.json."""
    config = OmegaConf.load(run / "config.yaml")
    config.fault = FLIP | {"name": fault.name, "target": fault.target, "scale": fault.scale, "share": fault.share}
    OmegaConf.save(config, run / "config.yaml")
    (run / "fault.json").write_text(json.dumps(asdict(fault) | {"changes": []}))
    seal(run)


def found(server_round, rule, accuracy, inputs=10, seconds=1.0, **more):
    """Return a row of suspects.csv: the rule's localization accuracy, one faulty client of 10."""
    row = dict.fromkeys(SUSPECT_COLUMNS) | {"chance_accuracy": 0.1, "faulty_clients": "1", "clients": 10}
    row |= {"round": server_round, "rule": rule, "localization_accuracy": accuracy, "inputs": inputs}
    return row | {"seconds": seconds, **more}


def does_not_apply(server_round, rule, note, inputs=10):
    """Return the row of a rule that does not apply: no numbers."""
    return dict.fromkeys(SUSPECT_COLUMNS) | {"round": server_round, "rule": rule, "inputs": inputs, "note": note}


def without_inputs(server_round):
    """Return the row of a round without mispredicted inputs."""
    row = {"round": server_round, "rule": "provenance", "inputs": 0, "faulty_clients": "1", "clients": 10}
    return dict.fromkeys(SUSPECT_COLUMNS) | row
