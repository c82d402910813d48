import logging

import pytest

from tracefl.errors import DataError
from tracefl.learning.faults.choice import choose_faulty
from tracefl.learning.faults.settings import RandomLabels

HELD = {"0": 3, "1": 60, "2": 512, "4": 512, "10": 70}  # client 3 does not take part


def settings(**keys):
    given = {"clients": None, "num_clients": None, "from_round": 1, "min_examples": 50, "share": 1.0}
    return RandomLabels(**given | keys)


def choose(seed=0, **keys):
    return choose_faulty(settings(**keys), HELD, seed)


def test_named_clients_that_hold_enough_are_taken(caplog):
    assert choose(clients=(10, 2)) == ("2", "10")
    assert choose(min_examples=3) == ("0",)
    assert not caplog.records


def test_a_client_with_too_few_is_replaced_by_the_one_with_most_and_it_is_said(caplog):
    caplog.set_level(logging.WARNING)
    assert choose() == ("2",)
    assert caplog.messages == [
        "fault.clients: client 0 holds 3 examples that the fault can change, fault.min_examples is 50; "
        "client 2 with 512 is faulty in its place"
    ]
    caplog.clear()
    assert choose(clients=(0, 2, 3)) == ("2", "4", "10")  # never one that is faulty already
    assert [message.split(";")[1] for message in caplog.messages] == [
        " client 4 with 512 is faulty in its place",
        " client 10 with 70 is faulty in its place",
    ]
    assert "client 3 does not take part" in caplog.text


def test_drawn_clients_hold_enough_and_come_from_the_seed():
    draws = {choose(seed, num_clients=2) for seed in range(60)}
    assert {client for draw in draws for client in draw} == {"1", "2", "4", "10"}
    assert len(draws) == 6  # every pair
    assert choose(7, num_clients=2) == choose(7, num_clients=2)
    assert choose(num_clients=4) == ("1", "2", "4", "10")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"min_examples": 600},
            "client 0 holds 3 .*no other client holds as many; the most .* is 512, client 2; lower",
        ),
        ({"clients": (0, 1, 2, 4, 10)}, "client 0 holds 3 .*no other client holds as many"),
        ({"num_clients": 5}, "fault.num_clients=5, and 4 of 5 clients that take part hold fault.min_examples=50"),
    ],
)
def test_too_few_that_hold_enough_are_refused_in_one_line(keys, message):
    with pytest.raises(DataError, match=message) as caught:
        choose(**keys)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_status == 2
