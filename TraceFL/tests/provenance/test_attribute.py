"""``attribute`` as it is called: the first-order effect of each removal, and every other formula by name."""

import warnings

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from tests.helpers import formula
from tests.helpers.formula import PUBLISHED
from tracefl.conf.key_text import choices
from tracefl.provenance import Method, RoundRecord, attribute, attribute_round

SIZES = {"a": 1200, "b": 300, "c": 500}
P = {"a": 0.6, "b": 0.15, "c": 0.25}


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.norm, self.head = nn.Embedding(9, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(torch.tanh(self.norm(self.words(x).mean(dim=1))))


@pytest.fixture
def situation():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Small().double().eval()
        floats = {n: t for n, t in model.state_dict().items() if t.is_floating_point()}
        clients = {k: {n: t + 0.1 * torch.rand_like(t) for n, t in floats.items()} for k in SIZES}
        average = {n: sum(P[k] * clients[k][n] for k in P) for n in floats}
        model.load_state_dict({**model.state_dict(), **average})
        return model, clients, average, torch.randint(9, (5, 6))


def test_by_itself_it_is_the_first_order_effect_of_leaving_each_client_out(situation):
    model, clients, average, x = situation
    predicted = model(x).argmax(dim=1)

    def centered(client, step):
        """The centered logit of the average moved by ``step`` of the way to the average without the client."""
        factor = -step * P[client] / (1 - P[client])
        moved = {n: t + factor * (clients[client][n] - t) for n, t in average.items()}
        logits = torch.func.functional_call(model, moved, (x,))
        return logits.gather(1, predicted.unsqueeze(1)).squeeze(1) - logits.mean(dim=1)

    h = 1e-6
    expected = torch.stack([(centered(k, -h) - centered(k, h)) / (2 * h) for k in clients], dim=1).detach()
    for p in (SIZES, P, list(SIZES.values())):
        assert_close(attribute(model, clients, x, p=p).contributions, expected, rtol=1e-5, atol=1e-7)
    by_name = attribute(model, clients, x, p=SIZES, reference=average)
    assert_close(by_name.contributions, expected, rtol=1e-5, atol=1e-7)


def test_it_is_the_preset_removal_of_a_round(situation):
    model, clients, average, x = situation
    record = RoundRecord(1, clients, P, average, average)
    assert_close(
        attribute(model, clients, x, p=SIZES).contributions,
        attribute_round(model, record, x, method=Method(verify=0)).contributions,
    )


def test_the_published_formula_is_asked_for_by_name(situation):
    model, clients, average, x = situation
    record = RoundRecord(1, clients, P, average, average)
    options = {**PUBLISHED, "also": ("batch_norm", "embedding")}
    expected = formula.attribute(model, clients, x, also=("batch_norm", "embedding")).contributions
    assert_close(attribute(model, clients, x, **options).contributions, expected)
    weighted = attribute(model, clients, x, p=SIZES, **{**options, "weighting": "num_examples"})
    assert_close(weighted.contributions, expected * torch.tensor(list(P.values()), dtype=torch.float64))
    for method, factors in ((Method.artifact(), 1.0), (Method.paper(), torch.tensor(list(P.values())).double())):
        found = attribute_round(model, record, x, method=method)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert_close(found.contributions, formula.attribute(model, clients, x).contributions * factors)


def test_equal_shares_are_said(situation):
    model, clients, _, x = situation
    with pytest.warns(UserWarning, match="no p is given: the 3 clients are taken to count equally") as caught:
        equal = attribute(model, clients, x)
    assert caught[0].filename == __file__
    assert_close(equal.contributions, attribute(model, clients, x, p=[7, 7, 7]).contributions)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"p": {"a": 1, "b": 2}}, "p has no number for clients 'c'"),
        ({"p": SIZES, "weighting": "p"}, "weighting must be one of none, num_examples, leave_one_out, got 'p'"),
        ({"p": SIZES, "reference": "average"}, "reference must be global, none or weights by name, got 'average'"),
    ],
)
def test_what_is_refused(situation, options, message):
    model, clients, _, x = situation
    with pytest.raises(ValueError, match=message):
        attribute(model, clients, x, **options)


def test_the_labels_are_asked_for_where_they_are_needed(situation):
    model, clients, average, x = situation
    record = RoundRecord(1, clients, P, average, average)
    with pytest.raises(ValueError, match="the target is the true label's logit: give the inputs' labels"):
        attribute_round(model, record, x, method=Method(target="label", weighting="none"))


@pytest.mark.parametrize("preset", ["artifact", "paper", "unlike", "leave_one_out"])
def test_a_preset_is_the_configuration_s(preset):
    from tests.helpers.configuration import compose_settings

    assert preset in choices("provenance")
    assert getattr(Method, preset)() == compose_settings(f"provenance={preset}").provenance.method
