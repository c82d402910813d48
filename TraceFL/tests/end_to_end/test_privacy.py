"""Whole private runs on tiny data."""

import json
import math
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.helpers.runs import LIGHT_MODEL, SMALL_MODEL, run
from tests.helpers.tables import read_csv
from tracefl.common.seeds import derive_seed
from tracefl.learning.models import ModelSpec, build_model
from tracefl.learning.privacy import dp_sgd
from tracefl.questions.retrace import retrace
from tracefl.records.store import RoundStore
from tracefl.records.tables import provenance_rows

pytestmark = pytest.mark.slow


def trainable_names(folder):
    """Return the trainable parameters in the order in which the noise is drawn."""
    model = build_model(ModelSpec.from_json((folder / "model.json").read_text()))
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]


def check_central_round(folder, n, clipping_norm, noise_multiplier):
    """Check that a stored round's clients are clipped and that its model is their average and the seeded noise."""
    record = RoundStore(folder / "rounds").read(n)
    names = trainable_names(folder)
    for state in record.clients.values():
        update = torch.cat([(state[k] - record.previous_global[k]).flatten() for k in names]).double()
        assert update.norm() <= clipping_norm * (1 + 1e-3)  # a small update of float32 weights is rounded
    p = record.client_weights
    for name, tensor in record.average.items():
        if tensor.is_floating_point():
            average = sum(p[k] * record.clients[k][name].double() for k in p)
            torch.testing.assert_close(tensor.double(), average, rtol=1e-5, atol=1e-6)
    draw = np.random.RandomState(derive_seed(42, "privacy", n))
    if noise_multiplier is None:
        return record
    for name in names:
        noise = draw.normal(0, noise_multiplier * clipping_norm / len(p), record.average[name].shape)
        noise = torch.from_numpy(noise.astype(np.float32))
        assert torch.equal(record.global_weights[name], record.average[name] + noise), name
    for name in set(record.global_weights) - set(names):
        assert torch.equal(record.global_weights[name], record.average[name]), name
    return record


def check_traces_again(folder):
    recorded = read_csv(folder / "provenance.csv")
    for n in (1, 2):
        _, trace = retrace(folder, n)
        again = [{k: str(v) for k, v in row.items()} for row in provenance_rows(n, trace.traced)]
        assert again == [row for row in recorded if row["round"] == str(n)]


def test_central_clips_adds_seeded_noise_and_traces_what_is_deployed(tmp_path):
    private = (
        *LIGHT_MODEL,
        "privacy=central",
        "privacy.noise_multiplier=0.001",
        "privacy.clipping_norm=1.5",
        "store=all",
    )
    folder = run(tmp_path / "one", *private)
    table = read_csv(folder / "rounds.csv")
    assert [(row["clipping_norm"], row["next_clipping_norm"]) for row in table] == [("1.5", "1.5")] * 2
    assert {row["epsilon"] for row in table} == {""}
    assert all(0 <= float(row["chance_accuracy"]) <= 1 for row in table)
    first = check_central_round(folder, 1, 1.5, 0.001)
    second = check_central_round(folder, 2, 1.5, 0.001)
    for name, tensor in second.previous_global.items():
        assert torch.equal(tensor, first.global_weights[name]), name  # round 2 starts from the model with its noise
    check_traces_again(folder)
    # Traced before the noise, the same rounds are trained, and provenance is asked of another model.
    before = run(tmp_path / "two", *private, "privacy.trace=before_noise")
    place = folder / "rounds" / "0002"
    kept = {str(path.relative_to(place)) for path in place.rglob("*.safetensors")}
    assert {"global.safetensors", "weights/previous_global.safetensors", "weights/before_noise.safetensors"} < kept
    for name in kept:
        files = [f / "rounds" / "0002" / name for f in (folder, before)]
        assert files[0].read_bytes() == files[1].read_bytes(), name
    for column in ("global_accuracy", "global_loss", "train_loss"):
        assert [row[column] for row in read_csv(before / "rounds.csv")] == [row[column] for row in table], column
    assert (before / "provenance.csv").read_text() != (folder / "provenance.csv").read_text()
    check_traces_again(before)
    again, told = retrace(folder, 2, ["privacy.trace=before_noise"])[1].traced, retrace(before, 2)[1].traced
    assert [row.input_index for row in again] == [row.input_index for row in told]
    for one, other in zip(again, told, strict=True):  # the last bit of a sum is a kernel's choice, not the model's
        assert dict(one.contributions) == pytest.approx(dict(other.contributions), rel=1e-5, abs=1e-6)


def test_central_adaptive_writes_the_norm_of_each_round(tmp_path):
    folder = run(tmp_path, *LIGHT_MODEL, "privacy=central_adaptive", "privacy.noise_multiplier=0.01", "store=all")
    first, second = read_csv(folder / "rounds.csv")
    assert float(first["clipping_norm"]) == 0.1
    assert first["next_clipping_norm"] == second["clipping_norm"]
    # All 3 clients move by more than 0.1 and half of them are to: the norm grows, by the noise on the count (0.15) more
    # or less.
    draw = np.random.RandomState(derive_seed(42, "privacy", 1))
    clipped = draw.normal(3, 3 / 20) / 3
    assert float(second["clipping_norm"]) == pytest.approx(0.1 * math.exp(0.2 * (clipped - 0.5)), rel=1e-12)
    for n, row in ((1, first), (2, second)):
        check_central_round(folder, n, float(row["clipping_norm"]), None)
    check_traces_again(folder)


def test_dp_sgd_trains_with_group_norm_and_writes_what_each_client_has_spent(tmp_path):
    folder = run(
        tmp_path,
        *SMALL_MODEL,
        "privacy=dp_sgd",
        "privacy.noise_multiplier=null",
        "privacy.target_epsilon=8",
        "store=all",
        "strategy=fedprox",
    )
    assert "12 BatchNorm layers are replaced by GroupNorm: bn1, layer1.0.bn1, " in (folder / "run.log").read_text()
    assert json.loads((folder / "model.json").read_text())["norm"] == "group"
    weights = load_file(folder / "rounds" / "0002" / "global.safetensors")
    assert not any(name.startswith("_module") or "running" in name for name in weights)
    assert "layer1.0.bn1.weight" in weights
    results = [json.loads((folder / f"rounds/000{n}/round.json").read_text()) for n in (1, 2)]
    rounds_of = dict.fromkeys("01234", 0)
    for row, result in zip(read_csv(folder / "rounds.csv"), results, strict=True):
        spent = dict(part.split(":") for part in row["epsilon_by_client"].split())
        assert set(spent) == set(result["client_weights"])
        assert float(row["epsilon"]) == pytest.approx(max(map(float, spent.values())), rel=1e-5)
        assert float(row["epsilon"]) <= 8
        for client_id in spent:
            rounds_of[client_id] += 1
        # A client in its second round of two has used up its target; one in its first round has not.
        for client_id, value in spent.items():
            assert (float(value) > 7.9) == (rounds_of[client_id] == 2), (client_id, value)
    assert sorted(rounds_of.values())[-1] == 2
    assert isinstance(json.loads((folder / "results.json").read_text())["mean"]["epsilon"], float)
    check_traces_again(folder)


def test_a_client_that_fails_within_a_batch_changes_no_other(tmp_path, monkeypatch):
    """In one process, where all clients train one model: what Opacus left on it would be in the next one's sums."""
    keys = (*LIGHT_MODEL, "privacy=dp_sgd", "privacy.noise_multiplier=1.0", "num_rounds=1", "provenance=off")
    keys = (*keys, "store=all", "clients_per_round=5", "dataset.max_examples_per_client=16", "batch_size=8")
    whole = run(tmp_path / "whole", *keys) / "rounds" / "0001" / "weights"
    backward, calls = dp_sgd.backward_of_sum, []

    def raises(layer, inputs):
        raise ValueError("the disk is full")

    def fails_once(model, inputs, labels):
        calls.append(inputs)
        with model.classifier.register_forward_pre_hook(raises) if len(calls) == 1 else nullcontext():
            return backward(model, inputs, labels)

    monkeypatch.setattr(dp_sgd, "backward_of_sum", fails_once)
    folder = run(tmp_path / "failed", *keys) / "rounds" / "0001"
    assert "the disk is full" in str(json.loads((folder / "round.json").read_text())["dropped"])
    sent = list((folder / "weights").glob("client-*"))
    assert len(sent) == 4
    for path in sent:
        assert path.read_bytes() == (whole / path.name).read_bytes(), path.name
