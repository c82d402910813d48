"""A thousand random models, each against autograd in float64, input by input: no silent error."""

import pytest
import torch
from torch.testing import assert_close

from tests.helpers.derivatives import derivatives
from tests.helpers.formula import attribute
from tests.helpers.models import clients_near
from tests.helpers.random_models import WIDTH, RandomClassifier
from tracefl.provenance import Compute

MODELS, TESTS = 1000, 10


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, MODELS, MODELS // TESTS))
def test_contributions_are_derivatives(first):
    for seed in range(first, first + MODELS // TESTS):
        model = RandomClassifier(seed).double()
        clients = clients_near(model, 2, scale=0.3)
        x = torch.randn(6, WIDTH, dtype=torch.float64)
        given = x.clone()
        compute = Compute(batch_size=(None, 4, 1)[seed % 3])
        found = attribute(model, clients, given, target="predicted", layer_decay=1.0, compute=compute)
        expected = derivatives(model, clients, x)
        assert_close(found.contributions, expected, rtol=1e-6, atol=1e-8, msg=lambda said, seed=seed: f"{seed}: {said}")
        assert torch.equal(given, x)
