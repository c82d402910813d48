"""The rule, on rounds worked by hand."""

import logging

import pytest

from tracefl.experiment.mitigation.decision import Mitigation
from tracefl.federation.participation import Participation
from tracefl.records.settings import DownweightSettings, ExclusionSettings
from tracefl.records.tables import MITIGATION_COLUMNS

IDS = tuple("0123456789")
RULE = {"gain": 0.01, "gain_alone": None, "window": 2, "from_round": 1}
BAR = 2.0


def mitigation(name="exclude", least_clients=2, **rule):
    rule = RULE | rule
    settings = ExclusionSettings(**rule) if name == "exclude" else DownweightSettings(**rule, factor=0.25)
    return Mitigation(settings, Participation(), least_clients)


def add(rule, server_round, totals, gains=None, clients=IDS, unknown=()):
    """Add a round after which clients stand out so far for class 7, and the others not at all, but for the unknown."""
    stand_outs = [
        {"round": server_round, "client": k, "toward": 7, "total": total, "since": 1, "named": total >= BAR}
        for k in clients
        if k not in unknown
        for total in (totals.get(k, 0.0),)
    ]
    rows = rule.add_round(server_round, clients, stand_outs, lambda client: (gains or {}).get(client, 0.0), IDS)
    return {row["client"]: row for row in rows}


def test_a_client_that_stands_out_and_without_which_the_average_gains_is_excluded(caplog):
    rule = mitigation()
    first = add(rule, 1, {"3": 2.5}, {"3": 0.02})
    assert (first["3"]["named"], first["3"]["gain"], first["3"]["decision"]) == (True, 0.02, "")
    assert (first["0"]["named"], first["0"]["gain"]) == (False, 0.0)  # everybody's is asked
    with caplog.at_level(logging.WARNING):
        second = add(rule, 2, {"3": 3.25}, {"3": 0.04})
    assert second["3"] == {
        "round": 2,
        "client": "3",
        "toward": 7,
        "total": 3.25,
        "named": True,
        "gain": 0.04,
        "window_rounds": "1 2",
        "window_gain": 0.02,
        "decision": "exclude",
        "from_round": 3,
        "factor": None,
    }
    assert tuple(second["3"]) == MITIGATION_COLUMNS
    assert [row["decision"] for client, row in second.items() if client != "3"] == [""] * 9
    assert rule.participation.excluded == {"3"}
    (line,) = (record.getMessage() for record in caplog.records)
    assert line == (
        "round=2 mitigate: client 3 is no longer drawn from round 3 on: it stands out for class 7 (a sum of 3.25), and "
        "+2.00% accuracy is gained without it, the median of rounds 1:+2.00% 2:+4.00%; asked are mitigate.gain=0.01 "
        "of who stands out"
    )


@pytest.mark.parametrize(
    ("rounds", "rule"),
    [
        ([(9.0, 0.5), (BAR - 0.01, 0.5)], {}),  # however far it stood out before, and however much is gained
        ([(9.0, 0.02), (9.0, 0.009)], {}),  # once hardly better without it
        ([(9.0, -0.1), (9.0, 0.9)], {}),
        ([(9.0, 0.5), (9.0, 0.009), (9.0, 0.009)], {"window": 3}),  # once alone
        ([(9.0, 0.5), (9.0, 0.5), (9.0, 0.009), (9.0, 0.009)], {"window": 4}),  # in half of the rounds
        ([(9.0, -0.031), (9.0, 0.0)], {"gain": -0.03}),  # leaving it out may cost so much, and no more
        ([(0.0, 0.19), (0.0, 0.5)], {"gain_alone": 0.2}),
        ([(0.0, 0.5)], {"gain_alone": 0.2}),  # no whole window
        ([(9.0, 0.02)], {}),
        ([(9.0, 0.02), (9.0, 0.02)], {"window": 3}),
        ([(9.0, 0.02), (9.0, 0.02)], {"from_round": 2}),
    ],
)
def test_whom_nothing_is_done_about(rounds, rule):
    rule = mitigation(**rule)
    for number, (total, gain) in enumerate(rounds, 1):
        rows = add(rule, number, {"3": total}, {"3": gain})
        assert all(row["decision"] == "" for row in rows.values())
    assert rule.participation == Participation()


def test_who_stands_out_is_excluded_though_that_costs_a_little():
    """A client that was taught a few labels only harms so little that the others' data are missed more."""
    rule = mitigation(gain=-0.03)
    add(rule, 1, {"3": 2.5}, {"3": -0.02, "4": 0.02})
    rows = add(rule, 2, {"3": 2.5}, {"3": -0.03, "4": 0.02})
    assert [client for client, row in rows.items() if row["decision"]] == ["3"]  # and nobody for a gain alone


def test_where_a_client_stands_after_the_round_is_what_counts():
    """It is a sum over its rounds; those before need not have reached the bar."""
    rule = mitigation()
    add(rule, 1, {"3": 0.5}, {"3": 0.5})
    assert add(rule, 2, {"3": BAR}, {"3": 0.5})["3"]["decision"] == "exclude"


def test_what_is_gained_can_be_enough_alone(caplog):
    """Of a client that suppresses what others have learned: it makes nothing another class, and does not stand out."""
    rule = mitigation(gain_alone=0.2)
    assert add(rule, 1, {"3": 0.1}, {"3": 0.4})["3"]["decision"] == ""
    with caplog.at_level(logging.WARNING):
        row = add(rule, 2, {}, {"3": 0.2})["3"]
    assert (row["named"], row["window_gain"], row["decision"]) == (False, 0.2, "exclude")
    assert caplog.messages[0].startswith("round=2 mitigate: client 3 is no longer drawn from round 3 on: it does not ")
    assert caplog.messages[0].endswith("mitigate.gain=0.01 of who stands out, mitigate.gain_alone=0.2")


def test_of_a_client_without_a_sum_the_gain_alone_is_known():
    """As of all in a run of three clients a round."""
    rule = mitigation(gain_alone=0.2, window=1)
    rows = add(rule, 1, {}, {"3": 0.1, "4": 0.2}, unknown=IDS)
    assert [client for client, row in rows.items() if row["decision"]] == ["4"]
    assert [(row["toward"], row["total"], row["named"]) for row in rows.values()] == [(None, None, None)] * 10
    rule = mitigation(window=1)
    assert not any(row["decision"] for row in add(rule, 1, {}, {"3": 0.9}, unknown=IDS).values())


def test_the_window_is_of_the_rounds_that_a_client_took_part_in():
    rule = mitigation(window=2)
    gains = {"3": 0.02}
    add(rule, 1, {"3": 3.0}, gains)
    assert add(rule, 2, {}, clients=tuple("01245678")).keys() == set("01245678")  # without client 3
    assert add(rule, 4, {"3": 3.0}, gains, clients=("3",)) == {}  # there is no average without it
    found = add(rule, 5, {"3": 3.0}, gains)["3"]
    assert (found["window_rounds"], found["decision"]) == ("1 5", "exclude")


def test_rounds_before_from_round_do_not_count():
    rule = mitigation(from_round=3)
    assert add(rule, 1, {"3": 9.0}, {"3": 0.1}) == add(rule, 2, {"3": 9.0}, {"3": 0.1}) == {}
    assert add(rule, 3, {"3": 9.0}, {"3": 0.1})["3"]["decision"] == ""
    assert add(rule, 4, {"3": 9.0}, {"3": 0.1})["3"]["decision"] == "exclude"


def test_never_so_many_that_too_few_are_left(caplog):
    rule = mitigation(least_clients=9, window=1)
    gains = {"3": 0.1, "4": 0.1}
    with caplog.at_level(logging.WARNING):
        rows = add(rule, 1, {"3": 3.0, "4": 3.5}, gains)
    assert (rows["4"]["decision"], rows["3"]["decision"]) == ("exclude", "too few left")  # who stands out most first
    assert rule.participation.excluded == {"4"}
    assert "client 3 is not excluded: fewer than 9 clients would be left" in caplog.text


def test_a_client_weighs_less_as_long_as_it_stands_out():
    rule = mitigation("downweight", window=2)
    decided = []
    history = [(3.0, 0.1), (3.0, 0.1), (3.0, 0.1), (3.0, -0.1), (0.0, 0.1), (3.0, 0.1), (3.0, 0.1), (1.0, 0.1)]
    for number, (total, gain) in enumerate(history, 1):
        row = add(rule, number, {"3": total}, {"3": gain})["3"]
        decided.append((row["decision"], row["factor"], rule.participation.factors.get("3")))
    assert decided == [
        ("", None, None),
        ("downweight", 0.25, 0.25),
        ("", None, 0.25),
        ("restore", 1, None),  # nothing is gained without it
        ("", None, None),
        ("downweight", 0.25, 0.25),
        ("", None, 0.25),
        ("restore", 1, None),  # it does not stand out any more
    ]


@pytest.mark.parametrize("name", ["exclude", "downweight"])
def test_recorded_rows_give_the_same_decisions(name):
    """A run that goes on after any round decides as the one that was never stopped."""
    history = [({"3": 0.8 * n, "5": 3.0}, {"3": 0.1, "5": 0.01 * (n % 3 - 1)}) for n in range(1, 9)]
    whole, recorded = mitigation(name), []
    for number, (totals, gains) in enumerate(history, 1):
        recorded.append(tuple(add(whole, number, totals, gains).values()))
    assert {row["client"] for rows in recorded for row in rows if row["decision"]} >= {"3"}
    for stopped in range(len(history)):
        again = mitigation(name)
        for rows in recorded[:stopped]:
            again.restore(rows)
        for number in range(stopped, len(history)):
            assert tuple(add(again, number + 1, *history[number]).values()) == recorded[number]
        assert again.participation == whole.participation


def test_more_than_half_of_the_window_is_enough():
    rule = mitigation(window=3)
    decided = [add(rule, n, {"3": 3.0}, {"3": gain})["3"]["decision"] for n, gain in enumerate((0.5, -0.5, 0.01), 1)]
    assert decided == ["", "", "exclude"]


@pytest.mark.parametrize(("gain", "before", "enough"), [(0.03, 0.8, True), (0.03, 0.8001, False), (-0.03, 0.86, True)])
def test_as_much_as_asked_is_enough_though_fractions_are_rounded(gain, before, enough):
    rule = mitigation(gain=gain, window=1)
    row = add(rule, 1, {"3": 3.0}, {"3": 0.83 - before})["3"]  # 0.83 - 0.8 is a little below 0.03
    assert (row["decision"] == "exclude") == enough
    alone = mitigation(gain_alone=0.03, window=1)
    assert add(alone, 1, {}, {"3": 0.83 - 0.8})["3"]["decision"] == "exclude"
