"""Clients from files, and attributions within a memory budget."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.testing import assert_close

from tests.helpers.formula import attribute
from tests.helpers.models import clients_near, model_and_inputs
from tracefl.errors import ModelMismatchError, RecordError
from tracefl.provenance import Compute, contraction, passes
from tracefl.provenance.capture import ActivationsTooLargeError

pytestmark = pytest.mark.filterwarnings("ignore:not traced")


@pytest.fixture
def stored(tmp_path):
    """Write clients as files; returns (client id to path)."""

    def write(clients, dtype=None, base=None):
        paths = {}
        for k, weights in clients.items():
            kept = {n: t if base is None else t - base[n] for n, t in weights.items()}
            paths[k] = tmp_path / f"client-{k}.safetensors"
            save_file({n: t.to(dtype or t.dtype).contiguous() for n, t in kept.items()}, paths[k])
        return paths

    return write


@pytest.mark.parametrize("block", [64, 2**21])
def test_files_give_what_memory_gives(family, stored, block, monkeypatch):
    monkeypatch.setitem(contraction._BLOCK, "cpu", block)
    model, inputs = model_and_inputs(family, torch.float64)
    clients = clients_near(model, num_clients=19)
    also = ("batch_norm", "embedding")
    layers = None if block > 64 else [name for name, _ in model.named_children()][-1:]
    in_memory = attribute(model, clients, inputs, also=also, layers=layers)
    from_files = attribute(model, stored(clients), inputs, also=also, layers=layers)
    assert_close(from_files.contributions, in_memory.contributions, rtol=0, atol=0)
    mixed = attribute(model, stored(clients) | {"3": clients["3"]}, inputs, also=also, layers=layers)
    assert_close(mixed.contributions, in_memory.contributions, rtol=0, atol=0)


def test_differences_to_a_base_are_the_same_clients(family, stored):
    model, inputs = model_and_inputs(family, torch.float64)
    clients = clients_near(model)
    base = clients_near(model, num_clients=1, seed=5)["0"]
    whole = attribute(model, clients, inputs).contributions
    assert_close(attribute(model, stored(clients, base=base), inputs, base=base).contributions, whole)


def test_bfloat16_differences_keep_more_than_bfloat16_weights(stored):
    """Eight bits of a small difference are worth more than eight bits of a weight."""
    model, inputs = model_and_inputs("resnet18")
    clients = clients_near(model, scale=0.01)
    base = model.state_dict()
    exact = attribute(model, clients, inputs, reference=base).contributions

    def error(**options):
        found = attribute(
            model, stored(clients, torch.bfloat16, options.get("base")), inputs, reference=base, **options
        )
        return float((found.contributions - exact).abs().max() / exact.abs().max())

    of_weights, of_differences = error(), error(base=base)
    assert of_differences < 1e-2
    assert of_differences < of_weights / 5


def test_subtracting_the_center_first_is_what_keeps_differences_exact():
    """Without a reference the contributions are large and alike; their differences stay exact in float32."""
    exact_model, inputs = model_and_inputs("resnet18", torch.float64)
    clients = clients_near(exact_model, scale=1e-4)
    exact = attribute(exact_model, clients, inputs, target="predicted").contributions
    model = exact_model.float()
    rounded = {k: {n: t.float() for n, t in w.items()} for k, w in clients.items()}
    found = attribute(model, rounded, inputs.float(), reference=model.state_dict()).contributions.double()
    spread = exact - exact.mean(dim=1, keepdim=True)
    error = (found - found.mean(dim=1, keepdim=True) - spread).abs().max() / spread.abs().max()
    assert error < 1e-3


def test_tied_weights_of_which_a_file_keeps_one_name(stored):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
            self.second.weight = self.first.weight

        def forward(self, x):
            return self.second(self.first(x).relu())

    model = Tied()
    clients = {k: {n: t + torch.randn(4, 4) for n, t in model.state_dict().items()} for k in "ab"}
    clients = {k: dict.fromkeys(w, w["first.weight"]) for k, w in clients.items()}
    whole = attribute(model, clients, torch.ones(2, 4)).contributions
    files = stored({k: {"first.weight": w["first.weight"]} for k, w in clients.items()})
    assert_close(attribute(model, files, torch.ones(2, 4)).contributions, whole)


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "missing"])
def test_damaged_files_are_refused(stored, damage):
    model = nn.Sequential(nn.Linear(4, 2))
    files = stored({"a": model.state_dict(), "b": model.state_dict()})
    path = files["b"]
    content = path.read_bytes()
    {
        "cut": lambda: path.write_bytes(content[:-4]),
        "empty": lambda: path.write_bytes(b""),
        "text": lambda: path.write_text("no tensors here"),
        "missing": path.unlink,
    }[damage]()
    with pytest.raises(RecordError, match=r"client-b\.safetensors (cannot be read|is no whole safetensors file)"):
        attribute(model, files, torch.ones(1, 4))


def test_a_file_without_a_parameter_is_refused(stored):
    model = nn.Sequential(nn.Linear(4, 2))
    files = stored({"a": {"0.weight": torch.ones(2, 4)}, "b": model.state_dict()})
    with pytest.raises(ModelMismatchError, match=r"client 'a' lacks parameter '0\.bias'"):
        attribute(model, files, torch.ones(1, 4))
    integers = stored({"a": {"0.weight": torch.ones(2, 4).int(), "0.bias": torch.ones(2)}})
    with pytest.raises(ModelMismatchError, match=r"client 'a' lacks parameter '0\.weight'"):
        attribute(model, integers, torch.ones(1, 4))


def test_a_small_budget_takes_fewer_inputs_at_a_time_and_gives_the_same(family, monkeypatch):
    model, inputs = model_and_inputs(family, torch.float64, num_inputs=5)
    clients = clients_near(model)
    whole = attribute(model, clients, inputs).contributions
    batches, forward = [], passes.run_forward

    def counted(*arguments):
        try:
            found = forward(*arguments)
        except ActivationsTooLargeError:
            batches.append("too large")
            raise
        batches.append(len(found[0]))
        return found

    monkeypatch.setattr(passes, "run_forward", counted)
    found = attribute(model, clients, inputs, compute=Compute(memory_budget=1)).contributions
    assert batches == ["too large"] * 3 + [1] * 5
    assert_close(found, whole)
