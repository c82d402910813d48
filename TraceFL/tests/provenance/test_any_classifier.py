"""Families of models that nothing in the engine knows of, against autograd's gradient of each input."""

import importlib.util

import pytest
import torch
from torch.testing import assert_close

from tests.helpers.derivatives import derivatives, double
from tests.helpers.families import ALWAYS, TIMM, TORCHVISION, TRANSFORMERS, small_model
from tests.helpers.formula import attribute
from tests.helpers.models import clients_near, model_and_inputs
from tracefl.provenance import Compute
from tracefl.provenance.layers import OPTIONS

FAMILIES = {"torchvision": TORCHVISION, "transformers": TRANSFORMERS, "timm": TIMM}


NEEDS_TIMM = pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="timm, of the extra dev, is absent")


def marks(kind, name):
    """Return when a family is tested: always one of each kind of layer and of forward."""
    return [NEEDS_TIMM] * (kind == "timm") + [pytest.mark.long] * (name not in ALWAYS[kind])


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(library[name], id=f"{name} of {kind}", marks=marks(kind, name))
        for kind, library in FAMILIES.items()
        for name in library
    ],
)
def test_a_classifier_without_special_case_agrees_with_autograd(make, recwarn):
    model, inputs = small_model(make)
    own, inputs = model.state_dict(), double(inputs)
    clients = clients_near(model)
    found = attribute(model, clients, inputs, target="predicted", layer_decay=1.0, reference=own, also=OPTIONS)
    expected = derivatives(model, clients, inputs, own)
    assert expected.abs().max() > 1e-6
    assert_close(found.contributions, expected, rtol=1e-8, atol=1e-9)
    assert not [w for w in recwarn if "not traced" in str(w.message)]


def test_a_batch_that_shares_its_positions_stays_a_batch():
    """GPT looks its positions up once for all inputs; each input still has its own part in them."""
    model, inputs = model_and_inputs("gpt", torch.float64, num_inputs=9)
    sizes = []
    clients, options = clients_near(model), {"reference": model.state_dict(), "also": ("embedding",)}
    hook = model.register_forward_pre_hook(lambda _, __, named: sizes.append(len(named["input_ids"])), with_kwargs=True)
    found = attribute(model, clients, inputs, **options)
    hook.remove()
    assert sizes == [9, 2, 1]  # the others check it: two in another order, and one alone
    alone = attribute(model, clients, inputs, compute=Compute(batch_size=1), **options)
    assert_close(found.contributions, alone.contributions)
    positions = attribute(model, clients, inputs, layers=["transformer.positions_embed"], **options)
    assert positions.contributions.abs().sum(dim=1).all()
