"""Folders of finished runs of the paper's experiments, made by hand with known numbers."""

import copy
import functools
import json
import time

from omegaconf import OmegaConf

from tests.helpers.configuration import compose_config
from tests.helpers.finished import finish
from tests.helpers.round_files import write_rounds
from tracefl.paper.collected_run import read_run
from tracefl.records.checksums import seal
from tracefl.records.settings import read_keys

_COLUMNS = ("global_accuracy", "localization_accuracy", "chance_accuracy")


@functools.cache
def _composed(overrides):
    return OmegaConf.to_container(compose_config(*overrides), resolve=True)


def make_exhibit_run(logs, rounds, *overrides, state="done", **values):
    """Write a run's folder.

    ``rounds`` holds (global, localization, chance) of each round, "" for not measured; ``values`` are the
    configuration's own keys, which need no composing.
    """
    config = copy.deepcopy(_composed(overrides)) | values | {"log_dir": str(logs), "num_rounds": len(rounds)}
    folder = read_keys(config).folder
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(config)))
    rows = [{"round": number} | dict(zip(_COLUMNS, measured, strict=True)) for number, measured in enumerate(rounds, 1)]
    write_rounds(folder, rows)
    status = {"state": state, "rounds_done": len(rounds), "num_rounds": len(rounds), "seconds": 9.0}
    status |= {"seconds_a_round": None, "updated": time.time(), "error": None}
    (folder / "status.json").write_text(json.dumps(status))
    seal(folder)
    if state == "done":
        finish(folder, len(rounds))
    return folder


def made_run(logs, rounds, *overrides, preset="artifact", **values):
    """Write a run's folder and read it as one that traced by this preset."""
    folder = make_exhibit_run(logs, rounds, *overrides, **values)
    run = read_run(folder, folder.name, {})
    run.row["provenance"] = preset
    return run
