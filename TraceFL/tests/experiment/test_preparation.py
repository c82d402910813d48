import json
from contextlib import closing

import pytest

from tests.helpers.configuration import TINY, compose_settings
from tracefl.errors import ConfigError, DataError
from tracefl.experiment.preparation import prepare_deployed, prepare_run, save_inputs
from tracefl.records.folder import RunFolder


def test_what_later_questions_need_is_written(tmp_path):
    settings = compose_settings(*TINY, "fault=label_flip", "fault.num_clients=1", "fault.min_examples=1")
    prepared = prepare_run(settings)
    with closing(RunFolder(tmp_path / "run", settings)) as folder:
        folder.begin(resume=False)
        save_inputs(folder, prepared)
    written = {"server.safetensors", "model.json", "label_counts.json", "fault.json"}
    assert {path.name for path in folder.path.iterdir()} == written | {"config.yaml", "SHA256SUMS"}
    assert written <= folder.files.checksums.keys()
    counts = json.loads(folder.files.read("label_counts.json", 10**6))
    assert counts["label_counts"] == prepared.data.label_counts.tolist()
    assert "deployed" not in counts


def test_fewer_clients_with_a_batch_than_a_round_samples_are_refused():
    with pytest.raises(DataError, match=r"clients_per_round=30, and only \d+ of 30 clients hold a full batch of"):
        prepare_run(compose_settings(*TINY, "num_clients=30", "clients_per_round=30"))


def test_a_deployment_takes_no_injected_fault():
    settings = compose_settings(*TINY, "fault=label_flip", "fault.num_clients=1")
    with pytest.raises(ConfigError, match="fault=label_flip: faults are injected in simulations only"):
        prepare_deployed(settings, dict)
