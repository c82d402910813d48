import pytest

from tests.helpers.made_page import NAMES, make_run, result, traced_input, with_suspicions
from tracefl.provenance import StandOuts
from tracefl.report.page import stand_outs
from tracefl.report.page.record import read_record
from tracefl.report.page.stand_outs import stand_out_map
from tracefl.report.page.write import render

HIGH = {"0": (0.5, 0.0, 0.0, 0.0), "2": (4.5, 1.0, 0.0, 1.5), "3": (0.0, 0.0, 2.0, 0.0)}
ROUNDS = [result(1), result(2)]


def test_sums_by_client_and_class_the_highest_first(tmp_path):
    found = stand_out_map(read_record(make_run(tmp_path, with_suspicions(ROUNDS, (HIGH, {"2": (1.5, 0.0, 0.0, 2.0)})))))
    assert [(row.name, row.note) for row in found.rows] == [("2", "named"), ("3", ""), ("0", "")]
    assert [cell.text for cell in found.rows[0].cells] == ["4.0", "", "", "1.5"]
    assert [cell.level for cell in found.rows[0].cells] == [1.0, 0.0, 0.0, 1.5 / 4]
    assert [cell.text for cell in found.rows[1].cells] == ["", "", "1.0", ""]
    assert found.rows[0].cells[0].words == "client 2, ant: 4.00 standard deviations, added up"
    assert (found.rounds, found.false_alarms, found.bar) == (2, 0.01, StandOuts(0.01).bar)
    assert [name for _, name in found.classes] == list(NAMES)
    assert found.not_shown == ()


def test_the_bar_is_the_runs_own(tmp_path):
    rounds = with_suspicions(ROUNDS[:1], (HIGH,), 0.4)
    found = stand_out_map(read_record(make_run(tmp_path, rounds, "provenance.false_alarms=0.4")))
    assert (
        {row.name for row in found.rows if row.note}
        == {client for client, sums in HIGH.items() if max(sums) - 1 >= StandOuts(0.4).bar}
        == {"2", "3"}
    )


def test_below_the_bar_the_bar_is_where_the_colour_is_deepest(tmp_path):
    found = stand_out_map(read_record(make_run(tmp_path, with_suspicions(ROUNDS[:1], ({"0": (1.5, 0, 0, 0)},)))))
    assert found.most == found.bar
    assert found.rows[0].cells[0].level == pytest.approx(0.5 / found.bar)


def test_what_does_not_fit_is_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(stand_outs, "LEAST_CLIENTS", 2)
    monkeypatch.setattr(stand_outs, "MOST_CLASSES", 3)
    found = stand_out_map(read_record(make_run(tmp_path, with_suspicions(ROUNDS[:1], (HIGH,)))))
    assert [row.name for row in found.rows] == ["2", "3"]
    assert [number for number, _ in found.classes] == [0, 2, 3]
    assert found.not_shown == (
        "2 of 3 clients are shown: those that stand out most",
        "3 of 4 classes are shown: those that stand out most",
    )


@pytest.mark.parametrize("overrides", [(), ("provenance=off",)])
def test_without_a_round_that_counts_there_is_no_map(tmp_path, overrides):
    record = read_record(make_run(tmp_path, [result(1)], *overrides))
    assert stand_out_map(record) is None
    assert 'id="stand-outs"' not in render(record)


def test_the_page_leads_from_a_class_to_its_wrong_predictions(tmp_path):
    rounds = with_suspicions([result(1, [traced_input(0, 1, 0)])], (HIGH,))
    page = render(read_record(make_run(tmp_path, rounds)))
    assert 'href="#inputs?class=0&amp;prediction=wrong"' in page
    assert 'id="stand-outs"' in page
    assert "<script>window.hacked" not in page
