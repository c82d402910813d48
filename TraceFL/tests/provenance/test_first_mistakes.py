"""What a newcomer gives in place of what is meant is refused in one line, which says what to give."""

import re

import pytest
import torch
from matplotlib import pyplot as plt
from torch import nn

import tracefl
from tests.helpers.models import bert
from tracefl.errors import ModelMismatchError, RecordError, TraceFLError
from tracefl.provenance import Method, RoundRecord, attribute, attribute_round, explain

X = torch.tensor([[1.0, 2.0]])
METHODS = "Method.unlike(), Method.artifact(), Method.paper() or Method.leave_one_out()"


@pytest.fixture
def federation():
    """A linear model that holds the average of two clients, and the two."""
    model = nn.Linear(2, 3)
    clients = {
        "a": torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]),
        "b": torch.tensor([[3.0, 0.0], [1.0, 0.0], X[0]]),
    }
    states = {k: {"weight": weight, "bias": torch.zeros(3)} for k, weight in clients.items()}
    model.load_state_dict({"weight": (clients["a"] + clients["b"]) / 2, "bias": torch.zeros(3)})
    return model, states


def asked(federation, **change):
    """Ask with something else in the place of what is right; returns the error, which is one line."""
    model, clients = federation
    with pytest.raises((TypeError, ValueError, TraceFLError)) as caught:
        tracefl.who(model, **{"clients": clients, "inputs": X, "sizes": [1, 1], **change})
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize(("given", "said"), [("removal", "'removal'"), (Method, "type"), (None, "NoneType")])
def test_a_method_is_no_name(federation, given, said):
    error = asked(federation, method=given)
    assert isinstance(error, TypeError)
    assert str(error) == (
        f"method must be a tracefl.provenance.Method, got {said}: give Method(), the preset removal, or {METHODS}"
    )


def test_a_rounds_method_is_no_name_either(federation):
    model, clients = federation
    record = RoundRecord(1, clients, {"a": 0.5, "b": 0.5}, model.state_dict(), model.state_dict())
    for ask in (attribute_round, explain):
        with pytest.raises(TypeError, match="method must be a tracefl.provenance.Method, got 'fault'"):
            ask(model, record, X, method="fault")
    assert explain(model, record, X, method=None).clients


def test_clients_need_ids(federation):
    model, clients = federation
    states = list(clients.values())
    said = "clients must be a mapping of ids to weights, got list: give dict(enumerate(clients))"
    assert str(asked(federation, clients=states)) == said
    record = RoundRecord(1, states, [0.5, 0.5], model.state_dict(), model.state_dict())
    for ask in (lambda: attribute(model, states, X, p=[1, 1]), lambda: attribute_round(model, record, X)):
        with pytest.raises(TypeError, match=re.escape(said)):
            ask()
    assert tracefl.who(model, dict(enumerate(states)), X, [1, 1]).client_ids == (0, 1)


def test_a_plot_is_drawn_in_axes(federation):
    answer = tracefl.who(*federation, X, [1, 1])
    words = "ax must be matplotlib Axes, got {}; to write a file: answer.plot().figure."
    for given, said in ((0, "0"), ("o.png", "'o.png'"), (plt, "module")):
        with pytest.raises(TypeError, match=re.escape(words.format(said))):
            answer.plot(given)
    figure, ax = plt.subplots()
    assert answer.plot(ax) is ax
    plt.close(figure)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickled_client_is_to_be_loaded(federation, tmp_path, zipped):
    path = tmp_path / "a.pt"
    torch.save(federation[1]["a"], path, _use_new_zipfile_serialization=zipped)
    error = asked(federation, clients={**federation[1], "a": path})
    assert isinstance(error, RecordError)
    assert str(error) == f"{path} is no safetensors file; load it: torch.load({str(path)!r}, weights_only=True)"
    loaded = torch.load(str(path), weights_only=True)
    assert tracefl.who(federation[0], {**federation[1], "a": loaded}, X, [1, 1]).client_ids == ("a", "b")


def test_a_damaged_safetensors_file_is_no_pickle(federation, tmp_path):
    (tmp_path / "a.safetensors").write_bytes(b"\x80\x02\0\0\0\0\0\0{")  # its header of 640 bytes is lost
    error = asked(federation, clients={"a": tmp_path / "a.safetensors"}, sizes=None)
    assert "is no whole safetensors file" in str(error)


def test_a_checkpoint_holds_a_state_dict(federation):
    model, clients = federation
    checkpoint = {"epoch": 3, "state_dict": clients["a"], "optimizer": {"state": {}, "param_groups": []}}
    said = "client 'a' is a mapping with 'epoch', 'state_dict', 'optimizer', and no state dict: give its 'state_dict'"
    error = asked(federation, clients={**clients, "a": checkpoint})
    assert (type(error), str(error)) == (ModelMismatchError, said)
    with pytest.raises(ModelMismatchError, match="give its 'state_dict'"):
        attribute(model, {**clients, "a": checkpoint}, X, p=[1, 1])


def test_a_tokenizers_lists_are_no_tensors(federation):
    error = asked(federation, inputs={"input_ids": [[1, 2]], "attention_mask": [[1, 1]]})
    assert isinstance(error, TypeError)
    assert str(error) == (
        "inputs hold no tensor (input_ids: list, attention_mask: list): give tensors, of a tokenizer by "
        'return_tensors="pt"'
    )


def test_a_mapping_without_a_batch_dimension():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = bert().eval()
    inputs = {"input_ids": torch.arange(1, 7), "attention_mask": torch.ones(6, dtype=torch.int64), "return_dict": True}
    with pytest.raises(ValueError, match="without a batch dimension") as caught:
        tracefl.who(model, {"a": model.state_dict()}, inputs)
    remedy = str(caught.value).split("dimension: give ")[1].split("}")[0]
    assert remedy == "{k: v.unsqueeze(0) for k, v in inputs.items()"


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ({"a": "12", "b": "3"}, "sizes of 'a' must be a number, got '12'"),
        (["12", 3], "sizes of 'a' must be a number, got '12'"),
        ({"a": None, "b": 3}, "sizes of 'a' must be a number, got None"),
        ("12", "sizes must be numbers, one for each client, got '12'"),
        (12, "sizes must be numbers, one for each client, got 12"),
    ],
)
def test_sizes_are_numbers(federation, sizes, said):
    error = asked(federation, sizes=sizes)
    assert (type(error), str(error)) == (TypeError, said)


def test_updates_are_no_weights(federation):
    model, weight = federation[0], federation[0].weight.detach()
    updates = {k: {"weight": share * weight, "bias": torch.zeros(3)} for k, share in {"a": 0.02, "b": 0.06}.items()}
    said = "the clients' weights look like updates: their norm is 0.04 of the model's; give weights: previous + update"
    with pytest.warns(UserWarning, match=re.escape(said)) as caught:
        answer = tracefl.who(model, updates, X)
    assert answer.notes[0] == said
    assert answer.notes[1].startswith("no sizes were given")
    assert str(answer).split("\n\n")[-1].startswith("note: the clients' weights look like updates")
    assert [warning.filename for warning in caught if said in str(warning.message)] == [__file__]


def test_small_weights_and_a_model_of_zeros_are_no_updates(federation, recwarn):
    model, clients = federation
    halved = {k: {name: tensor / 2 for name, tensor in state.items()} for k, state in clients.items()}
    nothing = nn.Linear(2, 3)
    nn.init.zeros_(nothing.weight)
    nn.init.zeros_(nothing.bias)
    for asked_model, given in ((model, halved), (nothing, clients)):
        assert not any("updates" in note for note in tracefl.who(asked_model, given, X, [1, 1]).notes)
    assert not [warning for warning in recwarn if "updates" in str(warning.message)]


def test_numbers_of_classes_are_no_logits(federation):
    class Decided(nn.Linear):
        def forward(self, inputs):
            return super().forward(inputs).argmax(dim=1)

    with pytest.raises(ValueError, match="must return logits, got numbers of torch.int64"):
        tracefl.who(Decided(2, 3), federation[1], X, [1, 1])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_model_of_coarse_numbers_says_which_effects_are_rounding(federation, dtype):
    """The bound is that of the error of any effect, or near it: compared with the same weights in float64."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 5))
    clients = {
        k: {name: t + 0.1 * torch.randn_like(t) for name, t in model.to(dtype).state_dict().items()} for k in "ab"
    }
    inputs = torch.randn(40, 8).to(dtype)
    exact = tracefl.who(model.double(), clients, inputs.double(), [1, 1])
    assert not any("rounds its logits" in note for note in exact.notes)
    coarse = tracefl.who(model.to(dtype), clients, inputs, [1, 1])
    (said,) = (found for note in coarse.notes if (found := re.search(r"rounds its logits by (\S+) or more", note)))
    missed = (coarse.attribution.contributions - exact.attribution.contributions).abs()
    assert 0.2 * float(said[1]) < missed.max() < 3 * float(said[1])


def test_probabilities_in_the_place_of_logits_are_said_to_be_none(federation):
    class Normalised(nn.Linear):
        def forward(self, inputs):
            return super().forward(inputs).softmax(dim=1)

    model, clients = federation
    words = "leave the model's last softmax out"
    assert any(words in note for note in tracefl.who(Normalised(2, 3), clients, X, [1, 1]).notes)
    assert not any(words in note for note in tracefl.who(model, clients, X, [1, 1]).notes)
    made = dict(model.state_dict())
    record = RoundRecord(1, clients, {"a": 0.5, "b": 0.5}, previous_global=made, global_weights=made)
    with pytest.warns(UserWarning, match=words):
        explain(Normalised(2, 3), record, X)
