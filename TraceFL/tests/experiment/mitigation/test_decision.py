"""The rule, on rounds worked by hand."""

import logging

import pytest

from tracefl.experiment.mitigation.decision import Mitigation
from tracefl.federation.participation import Participation
from tracefl.records.settings import DownweightSettings, ExclusionSettings
from tracefl.records.tables import MITIGATION_COLUMNS

IDS = tuple("0123456789")
RULE = {"share": 0.3, "gain": 0.01, "gain_alone": None, "window": 2, "from_round": 1, "min_mispredictions": 10}


def mitigation(name="exclude", least_clients=2, **rule):
    rule = RULE | rule
    settings = ExclusionSettings(**rule) if name == "exclude" else DownweightSettings(**rule, factor=0.25)
    return Mitigation(settings, Participation(), least_clients)


def add(rule, server_round, named, gains=None, clients=IDS, mispredictions=20):
    """Add a round whose mispredictions name clients so often, and client 9 for the rest."""
    names = [client for client, often in named.items() for _ in range(often)]
    names += ["9"] * (mispredictions - len(names))
    rows = rule.add_round(server_round, clients, names, lambda client: (gains or {}).get(client, 0.0), IDS)
    return {row["client"]: row for row in rows}


def test_a_client_named_often_enough_in_a_whole_window_is_excluded(caplog):
    rule = mitigation()
    first = add(rule, 1, {"3": 6}, {"3": 0.02})  # 6 of 20 are exactly 0.3
    assert (first["3"]["named"], first["3"]["gain"], first["3"]["decision"]) == (6, 0.02, "")
    assert first["0"]["gain"] == 0.0  # everybody's is asked
    with caplog.at_level(logging.WARNING):
        second = add(rule, 2, {"3": 10}, {"3": 0.04})
    assert second["3"] == {
        "round": 2,
        "client": "3",
        "mispredictions": 20,
        "named": 10,
        "gain": 0.04,
        "window_rounds": "1 2",
        "window_mispredictions": 40,
        "window_named": 16,
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
        "round=2 mitigate: client 3 is no longer drawn from round 3 on; named in 16 of 40 mispredictions, "
        "2.00% accuracy gained without it, the median of rounds (round:named/mispredictions:gained) "
        "1:6/20:+2.00% 2:10/20:+4.00%; asked are mitigate.share=0.3 and mitigate.gain=0.01"
    )


@pytest.mark.parametrize(
    ("rounds", "rule"),
    [
        ([(6, 0.02), (5, 0.02)], {}),  # 11 of 40 are below 0.3
        ([(20, 0.02), (20, 0.009)], {}),  # once hardly better without it
        ([(20, -0.1), (20, 0.9)], {}),
        ([(20, 0.5), (20, 0.009), (20, 0.009)], {"window": 3}),  # once alone
        ([(20, 0.5), (20, 0.5), (20, 0.009), (20, 0.009)], {"window": 4}),  # in half of the rounds
        ([(0, 0.19), (0, 0.5)], {"gain_alone": 0.2}),
        ([(0, 0.5)], {"gain_alone": 0.2}),  # no whole window
        ([(0, 0.5), (0, 0.5)], {}),  # however much is gained, where nothing is enough alone
        ([(20, 0.02)], {}),
        ([(20, 0.02), (20, 0.02)], {"window": 3}),
        ([(20, 0.02), (20, 0.02)], {"min_mispredictions": 21}),
        ([(20, 0.02), (20, 0.02)], {"from_round": 2}),
    ],
)
def test_whom_nothing_is_done_about(rounds, rule):
    rule = mitigation(**rule)
    for number, (named, gain) in enumerate(rounds, 1):
        rows = add(rule, number, {"3": named}, {"3": gain})
        assert all(row["decision"] == "" for row in rows.values())
    assert rule.participation == Participation()


def test_what_is_gained_can_be_enough_alone(caplog):
    """Of a client that suppresses what others have learned: it is hardly named."""
    rule = mitigation(gain_alone=0.2)
    assert add(rule, 1, {"3": 1}, {"3": 0.4})["3"]["decision"] == ""
    with caplog.at_level(logging.WARNING):
        row = add(rule, 2, {}, {"3": 0.2})["3"]
    assert (row["window_named"], row["window_gain"], row["decision"]) == (1, 0.2, "exclude")
    assert caplog.messages[0].endswith("mitigate.share=0.3 and mitigate.gain=0.01, or mitigate.gain_alone=0.2")


def test_a_round_in_which_a_client_is_hardly_named_counts_with_its_gain():
    rule = mitigation()
    add(rule, 1, {"3": 7}, {"3": 0.5})
    assert add(rule, 2, {"3": 5}, {"3": 0.5})["3"]["decision"] == "exclude"  # 12 of 40 are 0.3
    rule = mitigation()
    add(rule, 1, {"3": 7}, {"3": 0.5})
    assert add(rule, 2, {"3": 5}, {"3": -0.5})["3"]["decision"] == ""


def test_the_window_is_of_the_rounds_that_a_client_took_part_in_and_that_are_evidence():
    rule = mitigation(window=2)
    gains = {"3": 0.02}
    add(rule, 1, {"3": 8}, gains)
    assert add(rule, 2, {}, clients=tuple("01245678")).keys() == set("01245678")  # without client 3
    assert add(rule, 3, {"3": 9}, gains, mispredictions=9) == {}  # too few mispredictions
    assert add(rule, 4, {"3": 10}, gains, clients=tuple("369")) == {}  # chance is 1 / 3, above 0.3
    assert add(mitigation(share=1.0), 1, {"3": 20}, clients=("3",)) == {}  # there is no average without it
    found = add(rule, 5, {"3": 8}, gains)["3"]
    assert (found["window_rounds"], found["decision"]) == ("1 5", "exclude")


def test_rounds_before_from_round_do_not_count():
    rule = mitigation(from_round=3)
    assert add(rule, 1, {"3": 9}, {"3": 0.1}) == add(rule, 2, {"3": 9}, {"3": 0.1}) == {}
    assert add(rule, 3, {"3": 9}, {"3": 0.1})["3"]["decision"] == ""
    assert add(rule, 4, {"3": 9}, {"3": 0.1})["3"]["decision"] == "exclude"


def test_never_so_many_that_too_few_are_left(caplog):
    rule = mitigation(least_clients=9, window=1)
    gains = {"3": 0.1, "4": 0.1}
    with caplog.at_level(logging.WARNING):
        rows = add(rule, 1, {"3": 8, "4": 9}, gains)
    assert (rows["4"]["decision"], rows["3"]["decision"]) == ("exclude", "too few left")  # the one named most first
    assert rule.participation.excluded == {"4"}
    assert "client 3 is not excluded: fewer than 9 clients would be left" in caplog.text


def test_a_client_weighs_less_as_long_as_it_is_named():
    rule = mitigation("downweight", window=2)
    decided = []
    for number, (named, gain) in enumerate([(8, 0.1), (8, 0.1), (8, 0.1), (8, -0.1), (0, 0.0), (8, 0.1)], 1):
        row = add(rule, number, {"3": named}, {"3": gain})["3"]
        decided.append((row["decision"], row["factor"], rule.participation.factors.get("3")))
    assert decided == [
        ("", None, None),
        ("downweight", 0.25, 0.25),
        ("", None, 0.25),
        ("restore", 1, None),
        ("", None, None),
        ("", None, None),
    ]


@pytest.mark.parametrize("name", ["exclude", "downweight"])
def test_recorded_rows_give_the_same_decisions(name):
    """A run that goes on after any round decides as the one that was never stopped."""
    history = [({"3": 8, "5": 7}, {"3": 0.1, "5": 0.01 * (n % 3 - 1)}) for n in range(1, 9)]
    whole, recorded = mitigation(name), []
    for number, (named, gains) in enumerate(history, 1):
        recorded.append(tuple(add(whole, number, named, gains).values()))
    for stopped in range(len(history)):
        again = mitigation(name)
        for rows in recorded[:stopped]:
            again.restore(rows)
        for number in range(stopped, len(history)):
            assert tuple(add(again, number + 1, *history[number]).values()) == recorded[number]
        assert again.participation == whole.participation


def test_more_than_half_of_the_window_is_enough():
    rule = mitigation(window=3)
    decided = [add(rule, n, {"3": 9}, {"3": gain})["3"]["decision"] for n, gain in enumerate((0.5, -0.5, 0.01), 1)]
    assert decided == ["", "", "exclude"]


@pytest.mark.parametrize("named", [13, 14])
def test_as_much_as_asked_is_enough_though_fractions_are_rounded(named):
    rule = mitigation(share=0.28, gain=0.03, window=1)  # 0.28 * 50 is a little above 14
    row = add(rule, 1, {"3": named}, {"3": 0.83 - 0.8}, mispredictions=50)["3"]  # and 0.83 - 0.8 a little below 0.03
    assert (row["decision"] == "exclude") == (named == 14)
