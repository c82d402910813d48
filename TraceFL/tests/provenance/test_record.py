"""A record is read as the model needs it and checked: against models that are averaged, loaded and run one by one."""

import copy
import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.testing import assert_close

from tracefl.errors import ModelMismatchError, RecordError
from tracefl.provenance import (
    Method,
    RoundRecord,
    attribute,
    attribute_round,
    counterfactuals,
    exact_shapley,
    explain,
    removal_effects,
    sampled_shapley,
    weights_without,
)
from tracefl.provenance.inputs import Batch
from tracefl.provenance.reading import read_round
from tracefl.provenance.removal import logits_under

COUNTS = {"a": 1200, "b": 300, "c": 50}
P = {k: n / 1550 for k, n in COUNTS.items()}
INPUTS = torch.randn(4, 6, generator=torch.Generator().manual_seed(3))
LABELS = torch.zeros(4, dtype=torch.int64)
EXACT = Method(verify="all")
ESTIMATE = Method(verify=0)
PUBLISHED = Method.artifact()
FORMULA = {"target": "predicted", "weighting": "none", "reference": "none", "layer_decay": 0.9, "also": ()}


class Net(nn.Module):
    """Two linear layers and a normalisation, some levels deep or not."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 4)

    def forward(self, x):
        return self.last(self.norm(self.first(x)).relu())


class Wrapped(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(x)


def mean(clients, p):
    """The average, in float64 and rounded once; integers are the first client's."""
    first = next(iter(clients.values()))
    return {
        n: sum(p[k] * c[n].double() for k, c in clients.items()).to(t.dtype) if t.is_floating_point() else t
        for n, t in first.items()
    }


def stepped(start, average, rate):
    return {n: (s + rate * (average[n] - s)) if s.is_floating_point() else s for n, s in start.items()}


class Round:
    """A round of ``Net``, with a step of the server, and what is right of it by building every model."""

    def __init__(self, rate=1.0, scale=0.3):
        torch.manual_seed(0)
        self.model = Net().eval()
        self.start = {n: t.clone() for n, t in self.model.state_dict().items()}
        self.clients = {
            k: {n: t + scale * torch.rand_like(t) if t.is_floating_point() else t for n, t in self.start.items()}
            for k in P
        }
        self.rate = rate
        self.weights = stepped(self.start, mean(self.clients, P), rate)
        self.model.load_state_dict(self.weights)
        self.record = RoundRecord(1, self.clients, P, self.start, self.weights, server_step=rate)

    @torch.no_grad()
    def logits(self, weights):
        model = copy.deepcopy(self.model)
        model.load_state_dict(weights)
        return model(INPUTS).double()

    def centered(self, ids):
        """The predicted class's centered logits where only these clients are averaged."""
        classes = self.logits(self.weights).argmax(1)
        total = sum(P[k] for k in ids)
        weights = self.start
        if ids:
            some = mean({k: self.clients[k] for k in ids}, {k: P[k] / total for k in ids})
            weights = stepped(self.start, some, self.rate)
        logits = self.logits(weights)
        return logits.gather(1, classes[:, None])[:, 0] - logits.mean(1)

    @property
    def effects(self):
        return torch.stack([self.centered("abc") - self.centered([j for j in P if j != k]) for k in P], dim=1)


def answers(model, record, classes):
    """What each function says the removals' effects are, and the Shapley values' sum."""
    found = {
        "removal_effects": removal_effects(model, record, INPUTS),
        "counterfactuals": counterfactuals(model, record, INPUTS).effects,
        "attribute_round": attribute_round(model, record, INPUTS, LABELS, EXACT).contributions,
    }
    explained = explain(model, record, INPUTS[:1], checked=3)
    by_id = {client.client_id: client.removal.effect for client in explained.clients}
    found["explain"] = torch.tensor([[by_id[k] for k in record.clients]])
    totals = {
        "exact_shapley": exact_shapley(model, record, INPUTS, classes),
        "sampled_shapley": sampled_shapley(model, record, INPUTS, classes, 4, 0),
    }
    return found, totals


def assert_right(round_, model, record):
    classes = round_.logits(round_.weights).argmax(1)
    found, totals = answers(model, record, classes)
    for name, effects in found.items():
        expected = round_.effects[: len(effects)]
        assert_close(effects.double(), expected, rtol=1e-4, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}")
    for values in totals.values():
        assert_close(values.total, round_.centered("abc") - round_.centered(""), rtol=1e-4, atol=1e-5)
        assert_close(values.values.sum(1), values.total)
    subsets = ["", "a", "b", "c", "ab", "ac", "bc", "abc"]
    value = {frozenset(s): round_.centered(list(s)) for s in subsets}
    for i, k in enumerate("abc"):
        others = [s for s in value if k not in s]
        share = {0: 1 / 3, 1: 1 / 6, 2: 1 / 3}
        expected = sum(share[len(s)] * (value[s | {k}] - value[s]) for s in others)
        assert_close(totals["exact_shapley"].values[:, i], expected, rtol=1e-4, atol=1e-5)


def renamed(record, change):
    return replace(
        record,
        clients={k: {change(n): t for n, t in c.items()} for k, c in record.clients.items()},
        previous_global={change(n): t for n, t in record.previous_global.items()},
        global_weights={change(n): t for n, t in record.global_weights.items()},
    )


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


FUNCTIONS = {
    "removal_effects": lambda m, r: removal_effects(m, r, INPUTS),
    "counterfactuals": lambda m, r: counterfactuals(m, r, INPUTS),
    "attribute_round": lambda m, r: attribute_round(m, r, INPUTS, LABELS, ESTIMATE),
    "leave_one_out": lambda m, r: attribute_round(m, r, INPUTS, LABELS, EXACT),
    "explain": lambda m, r: explain(m, r, INPUTS[:1]),
    "exact_shapley": lambda m, r: exact_shapley(m, r, INPUTS, LABELS),
    "sampled_shapley": lambda m, r: sampled_shapley(m, r, INPUTS, LABELS, 4, 0),
    "weights_without": lambda m, r: weights_without(r, next(iter(r.clients))),
}
every_function = pytest.mark.parametrize("ask", FUNCTIONS.values(), ids=FUNCTIONS)
WITH_MODEL = {name: ask for name, ask in FUNCTIONS.items() if name != "weights_without"}


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


@every_function
def test_numbers_of_examples_are_divided_by_their_sum_and_said(ask):
    round_ = Round()
    with pytest.warns(UserWarning, match="taken as numbers of examples and divided by their sum, 1550"):
        ask(round_.model, replace(round_.record, client_weights=COUNTS))


def test_numbers_of_examples_give_what_their_shares_give():
    round_ = Round()
    with pytest.warns(UserWarning, match="numbers of examples"):
        assert_right(round_, round_.model, replace(round_.record, client_weights=COUNTS))


@every_function
@pytest.mark.parametrize(
    ("p", "message"),
    [
        ({"a": 0.5, "b": 0.2, "c": 0.1}, "client_weights adds up to 0.8: .* Is a client missing?"),
        ({"a": 0.9, "b": 0.9, "c": 0.1}, "adds up to 1.9"),
        ({"a": 0.5, "b": 0.5}, "no number for clients 'c'; it has numbers for 'a', 'b'"),
        ({"a": 0.5, "b": 0.5, "c": 0.0}, "client 'c' has weight 0: .* its contribution is 0"),
        ({"a": 1.5, "b": -0.5, "c": 1e-9}, "must be positive numbers, got -0.5 of 'b'"),
        ({"a": float("nan"), "b": 0.5, "c": 0.5}, "must be positive numbers, got nan of 'a'"),
    ],
)
def test_weights_that_are_no_average_s_are_refused(ask, p, message):
    round_ = Round()
    with pytest.raises(RecordError, match=message):
        ask(round_.model, replace(round_.record, client_weights=p))


def test_a_client_that_is_missing_is_named_as_the_reason():
    round_ = Round()
    less = {k: round_.clients[k] for k in "ab"}
    with pytest.raises(RecordError, match="clients that are not there, 'c'"):
        removal_effects(round_.model, replace(round_.record, clients=less), INPUTS)
    with pytest.warns(UserWarning, match="1500"), pytest.raises(RecordError, match="is not the weighted average"):
        removal_effects(
            round_.model, replace(round_.record, clients=less, client_weights={"a": 1200, "b": 300}), INPUTS
        )


@every_function
def test_a_global_model_that_is_no_average_is_refused(ask):
    round_ = Round(rate=1.9)
    with pytest.raises(
        RecordError, match=r"not the weighted average of its clients: '.*' differs by up to .*server_step="
    ):
        ask(round_.model, replace(round_.record, server_step=1.0))
    with pytest.raises(RecordError, match="not the step of 0.5 to the weighted average"):
        ask(round_.model, replace(round_.record, server_step=0.5))
    with pytest.raises(RecordError, match="server_step must be a positive number"):
        ask(round_.model, replace(round_.record, server_step=0.0))


@pytest.mark.parametrize("rate", [1.0, 1.9, 0.3])
def test_removals_and_shapley_values_take_the_server_s_step(rate):
    round_ = Round(rate=rate)
    assert_right(round_, round_.model, round_.record)
    assert_close(dict(round_.record.average), mean(round_.clients, P))


def linear_round(rate, carried=0.0):
    """A linear model, whose estimates are exact, and a step with what earlier rounds' momentum adds."""
    torch.manual_seed(1)
    model = nn.Linear(6, 4).double()
    start = {n: t.clone() for n, t in model.state_dict().items()}
    clients = {k: {n: torch.randn_like(t) for n, t in start.items()} for k in P}
    made = stepped(start, mean(clients, P), rate)
    deployed = {n: t + carried for n, t in made.items()}
    model.load_state_dict(deployed)
    return model, RoundRecord(1, clients, P, start, deployed, made if carried else None, server_step=rate)


@pytest.mark.parametrize(("rate", "carried"), [(1.0, 0.0), (1.9, 0.0), (0.3, 0.7)])
def test_the_estimate_takes_the_server_s_step_too(rate, carried):
    model, record = linear_round(rate, carried)
    inputs = INPUTS.double()
    found = attribute_round(model, record, inputs, LABELS, ESTIMATE).contributions
    logits = model(inputs).detach()
    classes = logits.argmax(1)
    for i, k in enumerate(P):
        rest = {j: c for j, c in record.clients.items() if j != k}
        others = mean(rest, {j: P[j] / (1 - P[k]) for j in rest})
        weights = {n: t + carried for n, t in stepped(record.previous_global, others, rate).items()}
        left = inputs @ weights["weight"].T + weights["bias"]
        effect = (logits - left).gather(1, classes[:, None])[:, 0] - (logits - left).mean(1)
        assert_close(found[:, i], effect)
        assert_close(removal_effects(model, record, inputs)[:, i], effect)


def test_a_step_that_is_not_linear_is_told_apart():
    round_ = Round()
    odd = {n: t + 0.01 * t.sign() if t.is_floating_point() else t for n, t in round_.weights.items()}
    record = replace(round_.record, global_weights=odd, server_step="nonlinear")
    for function in FUNCTIONS.values():
        with pytest.raises(RecordError, match="server's step is not linear"):
            function(round_.model, record)
    round_.model.load_state_dict(odd)
    found = attribute_round(round_.model, record, INPUTS, LABELS, PUBLISHED).contributions
    assert_close(found, attribute(round_.model, round_.clients, INPUTS, **FORMULA).contributions)
    told = explain(round_.model, record, INPUTS[:1], PUBLISHED)
    assert [client.removal for client in told.clients] == [None] * 3


def test_contributions_that_need_no_average_are_given_for_any_global_model():
    round_ = Round(rate=1.9)
    record = replace(round_.record, server_step=1.0)
    found = attribute_round(round_.model, record, INPUTS, LABELS, PUBLISHED).contributions
    assert_close(found, attribute(round_.model, round_.clients, INPUTS, **FORMULA).contributions)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_an_average_is_known_in_spite_of_rounding(dtype):
    """Sums of many clients in the weights' own type, one after another, divided last as Flower does."""
    torch.manual_seed(0)
    n = {k: float(17 + 3 * k) for k in range(40)}
    clients = {k: {"w": torch.randn(300, 7).to(dtype)} for k in n}
    sums = sum(clients[k]["w"].float() * n[k] for k in n) / sum(n.values())
    record = RoundRecord(1, clients, {k: n[k] / sum(n.values()) for k in n}, clients[0], {"w": sums.to(dtype)})
    assert read_round(None, record).is_average
    beside = {"w": sums.to(dtype) + {torch.float32: 1e-4, torch.float16: 0.02, torch.bfloat16: 0.2}[dtype]}
    with pytest.raises(RecordError, match="'w' differs by up to"):
        assert read_round(None, replace(record, global_weights=beside)).is_average


def test_clients_that_were_rounded_for_storage():
    round_ = Round()
    kept = {
        k: {n: t.bfloat16().float() if t.is_floating_point() else t for n, t in c.items()}
        for k, c in round_.clients.items()
    }
    record = replace(round_.record, clients=kept)
    with pytest.raises(RecordError, match="not the weighted average"):
        removal_effects(round_.model, record, INPUTS)
    found = removal_effects(round_.model, replace(record, clients_dtype=torch.bfloat16), INPUTS)
    assert_close(found, round_.effects, rtol=0.1, atol=0.02)


def test_a_model_that_holds_other_weights_is_given_the_round_s_and_its_own_again():
    round_ = Round()
    other = Net().train()
    before = {n: t.clone() for n, t in other.state_dict().items()}
    for method in (ESTIMATE, EXACT, PUBLISHED):
        expected = attribute_round(round_.model, round_.record, INPUTS, LABELS, method).contributions
        found = attribute_round(other, round_.record, INPUTS, LABELS, method).contributions
        assert_close(found, expected, rtol=0, atol=0)
    assert_right(round_, other, round_.record)
    assert other.training
    assert_close(dict(other.state_dict()), before, rtol=0, atol=0)


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


@pytest.mark.parametrize("ask", ["attribute", *WITH_MODEL])
def test_an_input_that_is_not_finite_is_blamed(ask, monkeypatch):
    round_ = Round()
    bad = INPUTS.clone()
    bad[0, 3] = torch.nan
    monkeypatch.setitem(globals(), "INPUTS", bad)
    function = (lambda model, record: attribute(model, record.clients, bad)) if ask == "attribute" else FUNCTIONS[ask]
    with pytest.raises(ValueError, match="input 0 holds values that are not finite"):
        function(round_.model, round_.record)


def test_logits_that_overflow_are_blamed():
    round_ = Round()
    huge = {k: {n: t * 1e30 if n.startswith("last") else t for n, t in c.items()} for k, c in round_.clients.items()}
    weights = mean(huge, P)
    record = replace(round_.record, clients=huge, global_weights=weights)
    round_.model.load_state_dict(weights)
    with pytest.raises(ModelMismatchError, match="overflow float32"):
        removal_effects(round_.model, record, INPUTS * 1e12)


def test_a_file_is_read_in_as_many_pieces_as_the_system_gives(tmp_path, monkeypatch):
    """Linux reads 2 GiB at a time; here it is 7 bytes."""
    round_ = Round()
    paths = as_files(round_, tmp_path)
    expected = attribute(round_.model, paths, INPUTS, p=P).contributions
    preadv = os.preadv
    monkeypatch.setattr(os, "preadv", lambda fd, buffers, at: preadv(fd, [buffers[0][:7]], at))
    assert_close(attribute(round_.model, paths, INPUTS, p=P).contributions, expected, rtol=0, atol=0)
