import pytest
import torch

from tracefl.provenance.shares import shares_of, weighted

IDS = ("a", "b", "c")


@pytest.mark.parametrize(
    "sizes",
    [
        {"b": 300, "a": 1200, "c": 500},  # numbers of examples
        [1200, 300, 500],
        torch.tensor([1200, 300, 500]),
        {"a": 0.6, "b": 0.15, "c": 0.25},  # shares
        (0.6, 0.15, 0.25),
    ],
)
def test_numbers_of_examples_or_shares_by_client_or_in_their_order(sizes):
    assert shares_of(IDS, sizes) == pytest.approx({"a": 0.6, "b": 0.15, "c": 0.25})
    assert list(shares_of(IDS, sizes)) == list(IDS)


def test_nothing_given_is_equal_shares_and_one_example_each_too():
    assert shares_of(IDS, None) == shares_of(IDS, [1, 1, 1]) == pytest.approx(dict.fromkeys(IDS, 1 / 3))
    assert shares_of((), None) == {}


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"a": 1, "b": 2}, "p has no number for clients 'c'; it has numbers for 'a', 'b'"),
        ({0: 1, 1: 2, 2: 3}, "no number for clients 'a', 'b', 'c'; it has numbers for 0, 1, 2"),
        ({"a": 1, "b": 2, "c": 3, "d": 4}, "clients that are not there, 'd'"),
        ([1, 2], "2 numbers for 3 clients"),
        ({"a": 1, "b": -2, "c": 3}, "must be positive numbers, got -2.0 of 'b'"),
        ({"a": 1, "b": float("nan"), "c": 3}, "must be positive numbers, got nan of 'b'"),
        ({"a": 0.5, "b": 0.2, "c": 0.2}, "p adds up to 0.9: neither shares"),
        ({"a": 50.5, "b": 20.2, "c": 20.2}, "p adds up to 90.9: neither"),
        ([0, 0, 0], "p adds up to 0: neither"),
    ],
)
def test_what_is_neither_is_refused(sizes, message):
    with pytest.raises(ValueError, match=message):
        shares_of(IDS, sizes)


def test_weightings():
    p = {"0": 0.5, "1": 0.3, "2": 0.2}
    assert weighted(p, "none") is None
    assert weighted(p, "num_examples") == p
    assert weighted(p, "leave_one_out") == pytest.approx({"0": 1.0, "1": 3 / 7, "2": 0.25})
    assert weighted({"0": 1.0}, "leave_one_out") == {"0": 1.0}
    with pytest.raises(ValueError, match="weighting must be one of none, num_examples, leave_one_out, got 'p'"):
        weighted(p, "p")
