"""Whom a method leaves out exactly where it is not told."""

import pytest

from tracefl.provenance import Method
from tracefl.provenance.budget import Proofs, num_proven, proofs_of, removing_all_is_no_dearer


@pytest.mark.parametrize("verify", [0, 1, 3, "all"])
@pytest.mark.parametrize("num_clients", [1, 10, 100])
def test_what_a_method_says_is_done(verify, num_clients):
    assert proofs_of(Method(verify=verify), num_clients) == Proofs(verify)


def test_few_clients_are_all_left_out_and_of_more_a_part():
    assert [proofs_of(Method(), k) for k in (1, 2, 10)] == [Proofs("all")] * 3
    for k in (11, 30, 100, 1000):
        each, shared = proofs_of(Method(), k)
        assert each == 2
        assert 2 <= shared < k / 2


def test_from_the_first_number_of_clients_that_is_too_dear_all_are():
    cheap = [removing_all_is_no_dearer(k) for k in range(1, 2000)]
    assert cheap == sorted(cheap, reverse=True)
    assert [num_proven(k) for k in range(1, 2000)] == sorted(num_proven(k) for k in range(1, 2000))


@pytest.mark.parametrize("method", [Method(target="label"), Method(layer_decay=0.9), Method(layers=("fc",))])
def test_an_attribution_that_estimates_no_removal_leaves_nobody_out(method):
    assert proofs_of(method, 5) == proofs_of(method, 100) == Proofs(0)


def test_it_is_said_in_words():
    assert str(Proofs("all")) == "all clients"
    assert str(Proofs(3)) == "each input's first 3"
    assert str(Proofs(2, 6)) == "6 clients for all inputs, then each input's first 2"
