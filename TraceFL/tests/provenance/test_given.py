"""Clients as files, arrays and lists, under other names and ids: read as the model names its tensors."""

import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.testing import assert_close

from tests.helpers.net_rounds import (
    ESTIMATE,
    EXACT,
    INPUTS,
    LABELS,
    WITH_MODEL,
    P,
    Round,
    Wrapped,
    assert_right,
    mean,
    renamed,
)
from tracefl.errors import ModelMismatchError
from tracefl.provenance import (
    RoundRecord,
    attribute,
    attribute_round,
    counterfactuals,
    explain,
    removal_effects,
)
from tracefl.provenance.inputs import Batch
from tracefl.provenance.removal import logits_under


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "base_model.model."])
def test_names_may_differ_by_a_common_prefix(prefix):
    round_ = Round()
    assert_right(round_, round_.model, renamed(round_.record, lambda name: prefix + name))


def test_a_submodule_s_weights_are_the_whole_model_s():
    round_ = Round()
    assert_right(round_, Wrapped(round_.model), round_.record)
    assert_right(round_, torch.compile(round_.model, backend="eager"), round_.record)
    other = renamed(round_.record, lambda name: f"module.{name}")
    assert_right(round_, Wrapped(round_.model), replace(other, global_weights=round_.weights))
    by_prefix = attribute(round_.model, other.clients, INPUTS, p=P).contributions
    assert_close(by_prefix, attribute(round_.model, round_.clients, INPUTS, p=P).contributions, rtol=0, atol=0)


@pytest.mark.parametrize("ask", WITH_MODEL.values(), ids=WITH_MODEL)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda n: n.replace("last", "head"),
            "lacks 'last.weight', 'last.bias' of the global model and has 'head.weight'",
        ),
        (lambda n: f"m.{n}" if "last" in n else n, "lacks 'last.weight', 'last.bias' of the global model"),
    ],
)
def test_other_names_are_refused(ask, change, message):
    round_ = Round()
    with pytest.raises(ModelMismatchError, match=message):
        ask(round_.model, renamed(round_.record, change))


def test_adapters_alone_are_refused_and_so_are_weights_of_a_larger_model():
    round_ = Round()
    adapters = {k: {"last.weight": c["last.weight"]} for k, c in round_.clients.items()}
    some = {"last.weight": round_.weights["last.weight"]}
    with pytest.raises(ModelMismatchError, match="lacks 'first.weight', .* Give whole state dicts"):
        removal_effects(round_.model, RoundRecord(1, adapters, P, some, some), INPUTS)
    larger = {**round_.weights, "extra.weight": torch.ones(2)}
    with pytest.raises(ModelMismatchError, match="also has 'extra.weight', which the model has not"):
        removal_effects(round_.model, replace(round_.record, global_weights=larger), INPUTS)


def test_weights_of_which_a_name_is_lacking_are_never_run():
    round_ = Round()
    batch = Batch(INPUTS, 4)
    for name in ("last.bias", "norm.running_mean"):
        lacking = {n: t for n, t in round_.weights.items() if n != name}
        with pytest.raises(ModelMismatchError, match=f"the weights lack '{name}'"):
            logits_under(round_.model, lacking, batch, 4, torch.device("cpu"))
    without = {n: t for n, t in round_.weights.items() if "num_batches" not in n}
    found = logits_under(round_.model, without, batch, 4, torch.device("cpu"))
    assert_close(found, round_.logits(round_.weights))


def as_files(round_, folder):
    paths = {}
    for k, weights in round_.clients.items():
        paths[k] = folder / f"{k}.safetensors"
        save_file({f"module.{n}": t.contiguous() for n, t in weights.items()}, paths[k])
    return paths


GIVEN = {
    "files": as_files,
    "texts": lambda round_, folder: {k: str(path) for k, path in as_files(round_, folder).items()},
    "arrays": lambda round_, folder: {k: {n: t.numpy() for n, t in c.items()} for k, c in round_.clients.items()},
    "lists": lambda round_, folder: {k: [t.numpy() for t in c.values()] for k, c in round_.clients.items()},
    "bytes": lambda round_, folder: {
        k: [np.frombuffer(t.numpy().tobytes(), t.numpy().dtype).reshape(t.shape) for t in c.values()]
        for k, c in round_.clients.items()
    },
    "tuples": lambda round_, folder: {k: tuple(c.values()) for k, c in round_.clients.items()},
    "float64": lambda round_, folder: {
        k: {n: t.double() if t.is_floating_point() else t for n, t in c.items()} for k, c in round_.clients.items()
    },
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("give", GIVEN.values(), ids=GIVEN)
def test_clients_as_files_and_arrays(give, tmp_path):
    round_ = Round()
    record = replace(round_.record, clients=give(round_, tmp_path))
    assert_right(round_, round_.model, record)
    expected = attribute_round(round_.model, round_.record, INPUTS, LABELS, ESTIMATE).contributions
    assert_close(attribute_round(round_.model, record, INPUTS, LABELS, ESTIMATE).contributions, expected)
    assert_close(
        attribute(round_.model, record.clients, INPUTS, p=P).contributions,
        attribute(round_.model, round_.clients, INPUTS, p=P).contributions,
    )


def test_the_global_models_as_arrays_and_files(tmp_path):
    round_ = Round()
    save_file(round_.weights, tmp_path / "global.safetensors")
    start = [np.asarray(t) for t in round_.start.values()]
    record = replace(round_.record, global_weights=tmp_path / "global.safetensors", previous_global=start)
    assert_right(round_, round_.model, record)


def test_lists_that_do_not_fit_are_refused():
    round_ = Round()
    lists = {k: [t.numpy() for t in c.values()] for k, c in round_.clients.items()}
    for fault, message in (
        (lambda arrays: arrays[:-1], "client 'b' is a list of 8 arrays, and model.state_dict.. has 9 tensors"),
        (lambda arrays: arrays[::-1], "client 'b' has an array of shape .* at place 0 .* 'first.weight' of shape"),
    ):
        bad = {**lists, "b": fault(lists["b"])}
        for ask in (
            lambda bad=bad: removal_effects(round_.model, replace(round_.record, clients=bad), INPUTS),
            lambda bad=bad: attribute(round_.model, bad, INPUTS),
        ):
            with pytest.raises(ModelMismatchError, match=message):
                ask()
    with pytest.raises(ModelMismatchError, match="client 'b' is a int; weights are"):
        attribute(round_.model, {**lists, "b": 3}, INPUTS)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_round_in_another_type_than_the_model_s(dtype):
    round_ = Round()
    cast = {
        k: {n: t.to(dtype) if t.is_floating_point() else t for n, t in c.items()} for k, c in round_.clients.items()
    }
    weights = mean(cast, P)
    record = replace(round_.record, clients=cast, global_weights=weights)
    round_.clients = {
        k: {n: t.to(w.dtype) for (n, t), w in zip(c.items(), round_.weights.values(), strict=True)}
        for k, c in cast.items()
    }
    round_.weights = {n: t.to(round_.weights[n].dtype) for n, t in weights.items()}
    found = removal_effects(round_.model, record, INPUTS)
    coarse = (
        0.05 if dtype != torch.float64 else 1e-5
    )  # the round's model was rounded to dtype, those without a client not
    assert_close(found, round_.effects, rtol=coarse, atol=coarse)


def test_ids_that_are_numbers(tmp_path):
    round_ = Round()
    number = {"a": 0, "b": 1, "c": 2}
    record = replace(
        round_.record,
        clients={number[k]: c for k, c in round_.clients.items()},
        client_weights={number[k]: p for k, p in P.items()},
    )
    found = attribute_round(round_.model, record, INPUTS, LABELS, EXACT)
    assert found.client_ids == (0, 1, 2)
    assert_close(found.contributions.double(), round_.effects, rtol=1e-4, atol=1e-5)
    assert found.responsible == tuple(round_.effects.argmax(1).tolist())
    assert {client.client_id for client in explain(round_.model, record, INPUTS[:1]).clients} == {0, 1, 2}
    assert counterfactuals(round_.model, record, INPUTS).client_ids == (0, 1, 2)
    broken = {**record.clients, 1: {n: t * torch.nan for n, t in round_.clients["b"].items()}}
    with pytest.raises(ModelMismatchError, match="clients 1 are not finite"):
        attribute(round_.model, broken, INPUTS)
    with pytest.raises(ModelMismatchError, match="client 1 holds values that are not finite"):
        removal_effects(round_.model, replace(record, clients=broken), INPUTS)
    with pytest.raises(ValueError, match="no number for clients 0, 1, 2; it has numbers for '0', '1', '2'"):
        attribute(round_.model, record.clients, INPUTS, p={"0": 0.3, "1": 0.3, "2": 0.4})


def test_a_file_is_read_in_as_many_pieces_as_the_system_gives(tmp_path, monkeypatch):
    """Linux reads 2 GiB at a time; here it is 7 bytes."""
    round_ = Round()
    paths = as_files(round_, tmp_path)
    expected = attribute(round_.model, paths, INPUTS, p=P).contributions
    preadv = os.preadv
    monkeypatch.setattr(os, "preadv", lambda fd, buffers, at: preadv(fd, [buffers[0][:7]], at))
    assert_close(attribute(round_.model, paths, INPUTS, p=P).contributions, expected, rtol=0, atol=0)
