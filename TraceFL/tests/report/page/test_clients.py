from dataclasses import replace

import pytest

from tests.helpers.made_page import COUNTS, FAULT, make_run, result, traced_input
from tracefl.provenance import TracedInput
from tracefl.records.tables import MITIGATION_COLUMNS
from tracefl.report.page import clients
from tracefl.report.page.clients import page_clients
from tracefl.report.page.record import read_record


def part(index, label, predicted, exact=(), depends=None, **contributions) -> TracedInput:
    """Return a traced input with contributions such as ``k2=-0.5`` of client 2, highest first."""
    given = tuple((k.removeprefix("k"), value) for k, value in contributions.items())
    more = {"contributions": given, "effects": tuple(exact), "counterfactual_client": depends}
    return traced_input(index, label, predicted, {client: 1 / len(given) for client, _ in given}, **more)


FIRST = (
    part(0, 0, 0, (("0", 0.5), ("2", -0.25)), "0", k0=0.75, k2=-0.5),
    part(1, 1, 1, (("2", 0.125), ("0", 0.25)), "0", k2=0.25, k0=0.125),
    part(2, 2, 0, k2=2.0, k0=-1.0),  # wrong, and not checked
)
SECOND = (part(0, 0, 0, k0=1.0, k2=0.5, k3=0.25),)
ROUNDS = (
    result(1, FIRST, weights={"0": 0.75, "2": 0.25}, dropped={"3": "it failed"}),
    result(2, SECOND, weights={"0": 0.5, "2": 0.25, "3": 0.25}),
)


def read(tmp_path, rounds, *overrides, **more):
    return page_clients(read_record(make_run(tmp_path, rounds, *overrides, **more), rounds=rounds))


def test_a_clients_part_by_hand(tmp_path):
    found = read(tmp_path, ROUNDS)
    assert [(row.client, row.rounds, row.examples) for row in found.rows] == [
        *(("0", 2, 13), ("1", 0, 4), ("2", 2, 9), ("3", 1, 11), ("4", 0, 3)),
    ]
    zero = found.rows[0]
    # Three correct predictions in its rounds: two are its by exact effects, one by contributions; 1/2 + 1/2 + 1/3.
    assert (zero.correct.traced, zero.correct.carried) == (3, 3)
    assert zero.correct.by_chance == pytest.approx(4 / 3)
    assert zero.correct.mean == pytest.approx((0.75 + 0.125 + 1.0) / 3)
    assert zero.correct.mean_effect == (0.5 + 0.25) / 2  # of the two that were checked
    assert zero.correct.mean_own == (0.375 + 0.0625) / 2  # its effect less the mean of both clients'
    assert (zero.correct.inputs, zero.correct.is_few) == (2, True)
    assert (zero.correct.interval.low, zero.correct.interval.high) == (0.125, pytest.approx(0.875))
    assert (zero.wrong.traced, zero.wrong.carried, zero.wrong.mean) == (1, 0, -1.0)
    assert zero.wrong.mean_effect is None
    assert (found.rows[1].correct.traced, found.rows[1].correct.mean) == (0, None)


def test_a_clients_section_by_hand(tmp_path):
    found = read(tmp_path, ROUNDS)
    assert found.sections["3"]["left"] == [[1, "it failed"]]
    section = found.sections["2"]
    assert section["held"] == COUNTS[2]
    assert section["whole"] == [
        [3, 0, 1.333, 0.08333, -0.0625, -0.2188, 2, [0.0, 0.25], [-0.375, -0.0625]],
        [1, 1, 0.5, 2.0, None, None, 1, None, None],
    ]
    assert section["each"] == [
        [
            *(1, 0.25, [2, 0, 1.0, -0.125, -0.0625, -0.2188, 2, None, None]),
            [1, 1, 0.5, 2.0, None, None, 1, None, None],
        ],
        [
            *(2, 0.25, [1, 0, 0.3333, 0.5, None, None, 1, None, None]),
            [0, 0, 0.0, None, None, None, 0, None, None],
        ],
    ]
    assert [(number, correct[0], wrong[0]) for number, correct, wrong in section["classes"]] == [(0, 2, 1), (1, 1, 0)]
    assert section["left"] == []
    # As the ledger has it: mean contribution to correct ones less half of that to wrong ones.
    assert section["useful"] == pytest.approx((-0.5 + 0.25 + 0.5) / 3 - 0.5 * 2.0, rel=1e-3)


def test_who_was_refused_or_capped_and_how_often(tmp_path):
    words = "its 1000 examples count as 30"
    first = replace(ROUNDS[0], refused=("3",), capped={"2": words})
    found = read(tmp_path, (first, replace(ROUNDS[1], capped={"2": words})))
    notes = {row.client: row.note for row in found.rows}
    assert (notes["2"], notes["3"]) == ("capped in 2 rounds", "refused in 1 round")
    assert found.sections["2"]["capped"] == [[1, words], [2, words]]
    assert found.sections["0"]["capped"] == []


def test_verified_contributions_alone_are_no_mean_effect(tmp_path):
    verified = replace(part(0, 0, 0, k0=0.75, k2=-0.5), verified=("0",))  # provenance.counterfactual=false
    found = read(tmp_path, [result(1, (verified,))])
    assert found.rows[0].correct.mean_effect is None
    assert found.sections["0"]["whole"][0] == [1, 1, 0.5, 0.75, None, None, 1, None, None]


def test_what_all_removals_have_in_common_is_apart(tmp_path):
    """Each effect is -1 and what the client adds: +0.5, -0.5 and 0, on twelve inputs."""
    exact = (("0", -0.5), ("2", -1.5), ("3", -1.0))
    inputs = [part(index, 0, 0, exact, k0=0.5, k3=0.0, k2=-0.5) for index in range(12)]
    found = read(tmp_path, [result(1, inputs)])
    assert [(row.correct.mean_effect, row.correct.mean_own) for row in found.rows if row.correct.traced] == [
        *((-0.5, 0.5), (-1.5, -0.5), (-1.0, 0.0)),
    ]
    (common, ends), (no_wrong_one, none) = found.common
    assert (common, ends.low, ends.high, ends.inputs) == (-1.0, -1.0, -1.0, 12)
    assert (no_wrong_one, none) == (None, None)
    assert {row.correct.carried for row in found.rows} == {0}  # all effects are negative: nobody carries these
    assert found.rows[0].correct.by_chance == 0
    assert not found.rows[0].correct.is_few


def decision(server_round, client, word, factor=None):
    row = {"round": server_round, "client": client, "decision": word, "factor": factor}
    return dict.fromkeys(MITIGATION_COLUMNS) | row | {"from_round": server_round + 1 if word else None}


def test_where_a_client_stands_at_the_end(tmp_path):
    decisions = (
        (decision(1, "0", "downweight", 0.25), decision(1, "2", "")),
        (decision(2, "0", "restore", 1), decision(2, "3", "exclude"), decision(2, "2", "too few left")),
    )
    rounds = [result(n, mitigation=rows) for n, rows in enumerate(decisions, 1)]
    run = make_run(tmp_path, rounds, "fault=label_flip", "fault.clients=[2]", "without=[4]", fault=FAULT)
    notes = {row.client: row.note for row in page_clients(read_record(run, rounds=rounds)).rows}
    assert notes == {
        "0": "weight restored from round 3 on",
        "1": "",
        "2": "faulty; suspected in round 2: too few left to exclude it",
        "3": "excluded from round 3 on",
        "4": "excluded by without, from round 1 on",
    }


def test_what_a_fault_makes_of_a_clients_labels(tmp_path):
    found = read(tmp_path, [result(1)], "fault=label_flip", "fault.clients=[2]", fault=FAULT)
    assert found.sections["2"]["trained"] == [7, 0, 0, 2]
    assert found.sections["3"]["trained"] is None


def test_many_clients_are_cut_and_said(tmp_path, monkeypatch):
    monkeypatch.setattr(clients, "MOST_CLIENTS", 2)
    monkeypatch.setattr(clients, "MOST_ROWS", 3)
    found = read(tmp_path, ROUNDS)
    assert [row.client for row in found.rows] == ["0", "2"]  # those with the largest contributions
    assert found.sections["0"]["each"] is None
    assert len(found.not_shown) == 2
    assert found.not_shown[0].startswith("2 of 5 clients are listed")


def test_a_number_that_is_none_is_null(tmp_path):
    broken = part(0, 0, 0, k0=float("nan"), k2=1.0)
    found = read(tmp_path, [result(1, (broken,))])
    assert found.sections["0"]["whole"][0][3] is None
    assert found.rows[0].correct.mean is None
