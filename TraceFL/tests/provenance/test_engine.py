import copy
import warnings

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from tests.helpers.formula import attribute
from tests.helpers.literal import literal_contributions
from tests.helpers.models import WHOLE, clients_near, model_and_inputs
from tracefl.errors import LayerNotTraceableError, ModelMismatchError
from tracefl.provenance import Compute

pytestmark = pytest.mark.filterwarnings("ignore:not traced")


def quiet(*args, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return attribute(*args, **kwargs)


VALUES = {
    "predicted": lambda logits: logits.max(),
    "margin": lambda logits: logits.topk(2).values[0, 0] - logits.topk(2).values[0, 1],
    "centered": lambda logits: logits.max() - logits.mean(),
}


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-9)])
def test_agrees_with_the_literal_algorithm(family, dtype, tolerance):
    model, inputs = model_and_inputs(family, dtype)
    clients = clients_near(model)
    for target, decay in (("predicted", 0.9), ("centered", 1.0), ("margin", 0.9)):
        expected = literal_contributions(model, clients, inputs, VALUES[target], decay)
        found = quiet(model, clients, inputs, target=target, layer_decay=decay).contributions
        assert found.dtype == dtype
        assert (found.double() - expected).abs().max() <= tolerance * expected.abs().max()


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-9)])
@pytest.mark.parametrize("name", WHOLE)
def test_whole_models_agree_with_the_literal_algorithm(name, dtype, tolerance):
    test_agrees_with_the_literal_algorithm(name, dtype, tolerance)


def test_reference_is_subtracted_from_every_client(family):
    model, inputs = model_and_inputs(family, torch.float64)
    clients = clients_near(model)
    reference = clients_near(model, 1, seed=9)["0"]
    expected = literal_contributions(model, clients, inputs, VALUES["predicted"], 0.9, reference)
    found = quiet(model, clients, inputs, reference=reference).contributions
    assert (found - expected).abs().max() <= 1e-9 * expected.abs().max()
    # Without weighting, the same tensor subtracted from every client changes no score.
    assert_close(quiet(model, clients, inputs).scores, quiet(model, clients, inputs, reference=reference).scores)


def test_scores_match_hand_calculation():
    # x = (1, 2) -> h = W1 x = (1, 4) -> logits = W2 h = (5, -4); class 0 is predicted, d logit_0 / d h = (1, 1).
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 2.0]]))
        model[1].weight.copy_(torch.tensor([[1.0, 1.0], [0.0, -1.0]]))
    clients = {
        # Layer 0: <W1 x, (1, 1)> = 1 + 0 = 1; layer 1: first row . h = 2 * 1 + 0 * 4 = 2. T = 0.9 * 1 + 2 = 2.9.
        "a": {"0.weight": torch.tensor([[1.0, 0.0], [0.0, 0.0]]), "1.weight": torch.tensor([[2.0, 0.0], [7.0, 7.0]])},
        # Layer 0: 0 + 2 * 2 = 4; layer 1: 0.5 * 1 + 0.25 * 4 = 1.5. T = 0.9 * 4 + 1.5 = 5.1.
        "b": {"0.weight": torch.tensor([[0.0, 0.0], [0.0, 2.0]]), "1.weight": torch.tensor([[0.5, 0.25], [7.0, 7.0]])},
    }
    found = attribute(model, clients, torch.tensor([[1.0, 2.0]]))
    assert_close(found.contributions, torch.tensor([[2.9, 5.1]]))
    assert_close(found.scores, torch.tensor([[2.9, 5.1]]).softmax(dim=1))
    assert found.predicted.tolist() == [0]
    assert found.responsible == ("b",)
    assert [client for client, _ in found.ranking(0)] == ["b", "a"]
    # Weights (0.75, 0.25): 2.175 against 1.275, so the answer turns.
    weighted = attribute(model, clients, torch.tensor([[1.0, 2.0]]), factors={"a": 0.75, "b": 0.25})
    assert_close(weighted.contributions, torch.tensor([[2.175, 1.275]]))
    # Class 1: d logit_1 / d h = (0, -1). a: 0.9 * 0 + 7 + 28 = 35; b: 0.9 * -4 + 35 = 31.4.
    other = attribute(model, clients, torch.tensor([[1.0, 2.0]]), target=torch.tensor([1]))
    assert_close(other.contributions, torch.tensor([[35.0, 31.4]]))


def test_fedavg_contributions_add_up_to_the_global_weights(family):
    """With W = sum p_k W_k, sum_k p_k T_k is the decayed product of the global weights with the gradient."""
    model, inputs = model_and_inputs(family, torch.float64)
    clients = clients_near(model)
    p = {"0": 0.5, "1": 0.3, "2": 0.2}
    average = {n: sum(p[k] * c[n] for k, c in clients.items()) for n in clients["0"]}
    model.load_state_dict({n: t.to(model.state_dict()[n].dtype) for n, t in average.items()})
    found = quiet(model, clients, inputs).contributions
    whole = quiet(model, {"all": model.state_dict()}, inputs).contributions
    assert_close((found * torch.tensor([0.5, 0.3, 0.2]).double()).sum(dim=1, keepdim=True), whole)


def test_updates_give_the_first_order_change_of_the_logit(family):
    """With updates and decay 1, sum_k p_k T_k is the derivative of the logit along the round's step."""
    model, inputs = model_and_inputs(family, torch.float64)
    previous = {n: t.clone() for n, t in model.state_dict().items()}
    clients = clients_near(model)
    traced = traced_parameters(model)
    step = {n: sum(clients[k][n] - previous[n] for k in clients) / 3 for n in traced}
    found = quiet(model, clients, inputs, target="predicted", layer_decay=1.0, reference=previous)

    def logits_at(t):
        moved = {n: previous[n] + t * step[n] if n in traced else v for n, v in previous.items()}
        out = torch.func.functional_call(
            model, moved, (), inputs if isinstance(inputs, dict) else {"x" if family != "input" else "input": inputs}
        )
        return getattr(out, "logits", out).gather(1, found.predicted.unsqueeze(1)).squeeze(1)

    h = 1e-5
    with torch.no_grad():
        slope = (logits_at(h) - logits_at(-h)) / (2 * h)
    assert_close(found.contributions.mean(dim=1), slope, rtol=1e-5, atol=1e-7)


def traced_parameters(model):
    from tests.helpers.literal import KINDS

    return {
        f"{name}.{p}" if name else p
        for name, layer in model.named_modules()
        if isinstance(layer, KINDS)
        for p, _ in layer.named_parameters()
    }


def test_batch_size_and_client_order_do_not_matter(family):
    model, inputs = model_and_inputs(family, torch.float64, num_inputs=5)
    clients = clients_near(model)
    whole = quiet(model, clients, inputs)
    for size in (1, 2):
        assert_close(quiet(model, clients, inputs, compute=Compute(batch_size=size)).contributions, whole.contributions)
    turned = quiet(model, dict(reversed(clients.items())), inputs)
    assert turned.client_ids == ("2", "1", "0")
    assert_close(turned.contributions.flip(1), whole.contributions)
    assert turned.responsible == whole.responsible


def test_a_layer_called_twice_counts_twice():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.shared, self.head = nn.Linear(3, 3), nn.Linear(3, 2)

        def forward(self, x):
            return self.head(self.shared(torch.tanh(self.shared(x))))

    torch.manual_seed(0)
    model, inputs = Twice().double(), torch.randn(4, 3).double()
    clients = clients_near(model)
    expected = literal_contributions(model, clients, inputs, VALUES["predicted"], 0.9)
    assert_close(attribute(model, clients, inputs).contributions, expected)


def test_an_activation_in_place_does_not_disturb():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(inplace=True), nn.Linear(3, 2)).double()
    inputs = torch.randn(4, 3).double()
    clients = clients_near(model)
    expected = literal_contributions(model, clients, inputs, VALUES["predicted"], 0.9)
    assert_close(attribute(model, clients, inputs).contributions, expected)


def test_an_input_overwritten_in_place_is_refused():
    class Overwrites(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.head = nn.Linear(3, 3), nn.Linear(3, 2)

        def forward(self, x):
            h = torch.tanh(x)
            s = self.first(h)
            h += 1
            return self.head(h + s)

    with pytest.raises(LayerNotTraceableError, match="input of layer 'first' is overwritten in place"):
        attribute(Overwrites(), clients_near(Overwrites()), torch.randn(4, 3))


def test_a_layer_that_folds_the_batch_is_traced_input_by_input():
    class Windows(nn.Module):
        def __init__(self):
            super().__init__()
            self.window, self.head = nn.Linear(2, 3), nn.Linear(6, 2)

        def forward(self, x):  # (B, 4) -> windows (2B, 2), window-major: no reshape tells the inputs apart
            b = len(x)
            h = torch.tanh(self.window(torch.cat([x[:, :2], x[:, 2:]])))
            return self.head(torch.cat([h[:b], h[b:]], dim=1))

    torch.manual_seed(0)
    model, inputs = Windows().double(), torch.randn(5, 4).double()
    clients = clients_near(model)
    expected = literal_contributions(model, clients, inputs, VALUES["predicted"], 0.9)
    assert_close(attribute(model, clients, inputs).contributions, expected)


def test_time_first_layers_are_told_from_batch_first_ones_of_the_same_length():
    class TimeFirst(nn.Module):
        def __init__(self):
            super().__init__()
            self.mix, self.head = nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, x):  # (B, T, 3) -> (T, B, 4) -> (B, 4)
            return self.head(torch.tanh(self.mix(x.transpose(0, 1))).mean(dim=0))

    torch.manual_seed(0)
    model, inputs = TimeFirst().double(), torch.randn(6, 6, 3).double()  # as many steps as inputs
    clients = clients_near(model)
    expected = literal_contributions(model, clients, inputs, VALUES["predicted"], 0.9)
    for size in (6, 4):
        assert_close(attribute(model, clients, inputs, compute=Compute(batch_size=size)).contributions, expected)


def test_one_client_answers_with_that_client():
    model, inputs = model_and_inputs("resnet18")
    found = quiet(model, clients_near(model, 1), inputs)
    assert found.responsible == ("0", "0", "0")
    assert_close(found.scores, torch.ones(3, 1))


def test_bfloat16_weights_are_multiplied_in_float32():
    torch.manual_seed(0)
    model, inputs = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 4)), torch.randn(4, 64)
    clients = clients_near(model)
    half = {k: {n: t.bfloat16() for n, t in c.items()} for k, c in clients.items()}
    rounded = {k: {n: t.float() for n, t in c.items()} for k, c in half.items()}
    assert_close(attribute(model, half, inputs).contributions, attribute(model, rounded, inputs).contributions)


def state_of(model):
    return (
        {n: t.clone() for n, t in model.state_dict().items()},
        [m.training for m in model.modules()],
        [p.requires_grad for p in model.parameters()],
        [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        [len(m._forward_hooks) + len(m._backward_hooks) + len(m._forward_pre_hooks) for m in model.modules()],
    )


@pytest.mark.parametrize("fails", [False, True])
def test_the_model_comes_back_as_it_was(family, fails):
    model, inputs = model_and_inputs(family)
    model.train()
    next(model.children()).eval()
    first, *_ = model.parameters()
    first.requires_grad_(False)
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    before = copy.deepcopy(state_of(model))
    clients = clients_near(model)
    if fails:
        handle = list(model.modules())[-1].register_forward_hook(lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            quiet(model, clients, inputs)
        handle.remove()
    else:
        quiet(model, clients, inputs)
    assert_close(state_of(model)[0], before[0])
    assert state_of(model)[1:3] == before[1:3]
    assert_close(state_of(model)[3], before[3])
    assert state_of(model)[4] == before[4]


class TestRefusals:
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
    inputs = torch.ones(2, 2)

    def client(self, **changed):
        return {**{n: t.clone() for n, t in self.model.state_dict().items()}, **changed}

    def test_missing_parameter(self):
        client = self.client()
        del client["2.bias"]
        with pytest.raises(ModelMismatchError, match=r"client 'x' lacks parameter '2.bias' .* shape \(2,\)"):
            attribute(self.model, {"x": client}, self.inputs)

    def test_wrong_shape(self):
        with pytest.raises(ModelMismatchError, match=r"'2.bias' in shape \(5,\), the global model in \(2,\)"):
            attribute(self.model, {"x": self.client(**{"2.bias": torch.zeros(5)})}, self.inputs)

    def test_not_finite(self):
        bad = self.client(**{"2.bias": torch.full((2,), torch.nan)})
        with pytest.raises(ModelMismatchError, match="clients x are not finite"):
            attribute(self.model, {"w": self.client(), "x": bad}, self.inputs)

    def test_unknown_layer(self):
        with pytest.raises(LayerNotTraceableError, match="layer 'fc' does not exist"):
            attribute(self.model, {"x": self.client()}, self.inputs, layers=["fc"])

    def test_untraceable_layer(self):
        with pytest.raises(LayerNotTraceableError, match="layer '1' is a ReLU"):
            attribute(self.model, {"x": self.client()}, self.inputs, layers=["1"])

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"clients": {}}, "no clients"),
            ({"inputs": torch.ones(0, 2)}, "no inputs"),
            ({"layer_decay": 0.0}, r"layer_decay must lie in \(0, 1\], got 0.0"),
            ({"target": "best"}, "unknown target 'best'"),
            ({"target": torch.tensor([0])}, r"expected shape \(2,\), got \(1,\)"),
            ({"target": torch.tensor([0, 2])}, r"must lie in 0..1, got \[0, 2\]"),
        ],
    )
    def test_arguments(self, arguments, message):
        call = {"global_model": self.model, "clients": {"x": self.client()}, "inputs": self.inputs, **arguments}
        with pytest.raises(ValueError, match=message):
            attribute(call.pop("global_model"), call.pop("clients"), call.pop("inputs"), **call)

    def test_a_model_that_detaches_its_logits(self):
        class Detached(nn.Sequential):
            def forward(self, x):
                return super().forward(x).detach()

        with pytest.raises(LayerNotTraceableError, match="do not depend on any traced layer"):
            attribute(
                Detached(nn.Linear(2, 2)), {"x": {"0.weight": torch.ones(2, 2), "0.bias": torch.ones(2)}}, self.inputs
            )


def test_layers_without_a_rule_are_named_in_one_warning():
    model, inputs = model_and_inputs("resnet18")
    with pytest.warns(UserWarning, match=r"12 BatchNorm2d \(bn1, layer1.0.bn1") as caught:
        attribute(model, clients_near(model), inputs)
    assert len(caught) == 1


def test_a_layer_that_is_never_called_adds_nothing():
    model = nn.Sequential(nn.Linear(2, 2))
    model.spare = nn.Linear(2, 2)
    model.forward = lambda x: model[0](x)
    found = attribute(model, clients_near(model), torch.ones(1, 2), by_layer=True)
    assert found.layers == ("0", "spare")
    assert not found.by_layer[..., 1].any()


def test_a_name_stands_for_all_layers_below_it(family):
    model, inputs = model_and_inputs(family, torch.float64)
    clients = clients_near(model)
    tops = [name for name, child in model.named_children() if any(True for _ in child.parameters())]
    traceable_tops = []
    for name in tops:
        try:
            quiet(model, clients, inputs, layers=[name], compute=Compute(batch_size=1))
            traceable_tops.append(name)
        except LayerNotTraceableError:
            continue
    assert_close(
        quiet(model, clients, inputs, layers=traceable_tops).contributions, quiet(model, clients, inputs).contributions
    )
