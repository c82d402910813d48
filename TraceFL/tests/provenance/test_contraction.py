"""Products of clients' parameters with gradients, beside the sums written out, in every order of multiplication."""

import pytest
import torch
from torch.testing import assert_close

from tracefl.provenance import contraction
from tracefl.provenance.contraction import Piece, application_is_cheaper, contract
from tracefl.provenance.layers import OuterProducts
from tracefl.provenance.sources import Clients

CPU = torch.device("cpu")


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def weights():
    """Three clients, a center near them and a reference: a weight (4, 6) and a bias (4,)."""
    states = [{"w": draw(4, 6, seed=n), "b": draw(4, seed=10 + n)} for n in range(5)]
    return dict(zip("abc", states, strict=False)), states[3], states[4]


def clients_of(weights, with_reference):
    clients, center, reference = weights
    return checked(Clients(clients, center, reference if with_reference else None, None, {}, CPU))


def checked(clients):
    clients.check({"w": (4, 6), "b": (4,)})
    return clients


@pytest.mark.parametrize("by_application", [True, False])
@pytest.mark.parametrize("block", [8, 2**21])
@pytest.mark.parametrize("with_reference", [True, False])
def test_products_are_the_sums_written_out(weights, monkeypatch, by_application, block, with_reference):
    monkeypatch.setattr(contraction, "application_is_cheaper", lambda *_: by_application)
    monkeypatch.setitem(contraction._BLOCK, "cpu", block)
    gradient, layer_input = draw(2, 3, 1, 5, 4, seed=20), draw(2, 1, 5, 6, seed=21)  # B 2, C 3, S 5, m 4, n 6
    bias = draw(2, 3, 4, seed=22)
    pieces = [Piece("w", OuterProducts(gradient, layer_input), 0.5), Piece("b", bias, -2.0)]
    found = contract([lambda: pieces[:1], lambda: pieces[1:]], clients_of(weights, with_reference))
    clients, _, reference = weights
    expected = torch.zeros(2, 3, 3, dtype=torch.float64)
    for b in range(2):
        for c in range(3):
            for k, state in enumerate(clients.values()):
                w, v = state["w"].double(), state["b"].double()
                if with_reference:
                    w, v = w - reference["w"], v - reference["b"]
                for s in range(5):
                    expected[b, c, k] += 0.5 * (gradient[b, c, 0, s].double() @ w @ layer_input[b, 0, s].double())
                expected[b, c, k] += -2.0 * (bias[b, c].double() @ v)
    assert found.dtype == torch.float64
    assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_clients_that_are_equal_and_no_reference_differ_in_nothing(weights):
    clients, center, _ = weights
    same = checked(Clients(dict.fromkeys("ab", clients["a"]), center, None, None, {}, CPU))
    found = contract([lambda: [Piece("b", draw(2, 3, 4), 1.0)]], same)
    assert torch.equal(found[:, :, 0], found[:, :, 1])


def factors(positions, outputs=100, inputs=100, targets=1):
    return OuterProducts(torch.zeros(1, targets, 1, positions, outputs), torch.zeros(1, 1, positions, inputs))


def test_the_cheaper_order_by_hand():
    # One position, one client. Gradient: 10,000 entries, each 1 + 8 + 1.6 * 16. Application: 10,000 + 8 * 100.
    assert application_is_cheaper(factors(positions=1), num_clients=1)
    # A thousand positions, 16 clients. Gradient: 10,000 * (1,000 + 8 + 25.6) = 10 million. Application: 173 million.
    assert not application_is_cheaper(factors(positions=1000), num_clients=16)
    # With a hundred targets application is shared: 100 * 10 million against 1,000 * 16 * (10,000 + 8 * 100 * 100).
    assert not application_is_cheaper(factors(positions=1000, targets=100), num_clients=16)
    assert application_is_cheaper(factors(positions=10, targets=100), num_clients=16)
