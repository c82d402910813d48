"""A run's folder, read back."""

import shutil

import pytest
import torch
from safetensors.torch import load_file

from tests.helpers.stored_runs import COUNTS, NAMES, P
from tracefl.errors import ConfigError, RecordError
from tracefl.records.checksums import seal
from tracefl.records.run import StoredRun


@pytest.fixture
def copied(image_run, tmp_path):
    """The stored run in a folder of the test's own."""
    return shutil.copytree(image_run, tmp_path / "run")


@pytest.mark.parametrize(("asked", "number"), [(None, 2), (1, 1), (2, 2)])
def test_a_round_and_its_model(image_run, asked, number):
    model, record = StoredRun(image_run).round(asked)
    assert (record.server_round, dict(record.client_weights)) == (number, P)
    written = load_file(image_run / "rounds" / f"000{number}" / "global.safetensors")
    state = model.state_dict()
    assert state.keys() == written.keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in written.items())


def test_what_the_run_knew(image_run):
    stored = StoredRun(image_run)
    assert stored.label_names == tuple(NAMES)
    assert stored.label_counts.tolist() == COUNTS
    assert stored.server.labels.tolist() == [0, 1, 2, 3]
    assert (stored.is_deployed, stored.fault, stored.device) == (False, None, "cpu")


def test_what_is_not_there_is_refused(copied):
    stored = StoredRun(copied)
    with pytest.raises(RecordError, match="round 3 has no weights"):
        stored.round(3)
    with pytest.raises(ConfigError, match="privacy.trace=before_noise, and round 1 of .* has no noise"):
        stored.round(1, before_noise=True)
    shutil.rmtree(copied / "rounds")
    with pytest.raises(RecordError, match="round 1 is missing"):
        stored.round()
    seal(copied)
    with pytest.raises(RecordError, match="keeps no round's weights; run with store=last or store=all"):
        stored.round()
    (copied / "model.json").unlink()
    with pytest.raises(RecordError, match="model.json is missing, and SHA256SUMS has a line for it"):
        _ = stored.spec
    seal(copied)
    with pytest.raises(RecordError, match="it has no model.json"):
        _ = stored.spec


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "is no run's folder: it has no config.yaml"),
        ("a: [1", "config.yaml is damaged or of another version of tracefl: "),
        ("[1, 2]", "is no run's configuration"),
    ],
)
def test_a_configuration_that_is_no_run_s_is_refused(tmp_path, text, message):
    if text is not None:
        (tmp_path / "config.yaml").write_text(text)
        seal(tmp_path)
    with pytest.raises(RecordError, match=message):
        StoredRun(tmp_path)


def test_damaged_label_counts_are_named(copied):
    (copied / "label_counts.json").write_text('{"label_names": ["one"], "label_counts": [[1, 2]]}')
    seal(copied)
    with pytest.raises(RecordError, match="version of tracefl: counts of shape .1, 2. for 4 clients and 1"):
        _ = StoredRun(copied).label_counts


@pytest.mark.parametrize("number", ["9" * 5000, "9" * 300, "\u0663", "\u00b3", "1", ""])
def test_what_is_no_number_of_a_round_is_none(copied, number):
    with (copied / "SHA256SUMS").open("a") as file:
        file.write(f"{'0' * 64}  rounds/{number}/SHA256SUMS\n")
    found, lacking = StoredRun(copied).readable()
    assert [result.server_round for result in found] == [1, 2]
    assert not lacking


def test_rounds_that_a_run_cannot_have_are_not_looked_for(copied):
    with (copied / "SHA256SUMS").open("a") as file:
        file.write(f"{'0' * 64}  rounds/999999999/SHA256SUMS\n")
    found, lacking = StoredRun(copied).readable(10**12)
    assert [result.server_round for result in found] == [1, 2]
    assert lacking == {3: "its folder is missing"}  # of num_rounds=3
    config = copied / "config.yaml"
    config.write_text(config.read_text().replace("num_rounds: 3", f"num_rounds: {10**9}"))
    seal(copied)
    with pytest.raises(RecordError, match="has 2 of 1000000000 rounds; use another copy of the run"):
        StoredRun(copied).readable(10**12)
