import pytest

from tests.helpers.made_page import COUNTS, FAULT, NAMES, make_run, result, traced_input
from tracefl.report.page import heat
from tracefl.report.page.heat import MINUS, heat_map, mean_contributions, signed
from tracefl.report.page.record import read_record


def part(index, label, predicted, **contributions):
    """Return a traced input with contributions such as ``k2=-0.5`` of client 2, highest first."""
    given = tuple((k.removeprefix("k"), value) for k, value in contributions.items())
    return traced_input(index, label, predicted, {client: 1 / len(given) for client, _ in given}, contributions=given)


# Rounds of different clients; predicted classes 0, 0, 1.
TRACED = (part(0, 0, 0, k0=0.6, k2=-0.4), part(1, 0, 0, k3=0.9, k0=0.1), part(2, 2, 1, k2=1.0, k3=0.0))


def test_means_by_hand():
    means = mean_contributions(TRACED)
    assert means["0", 0] == (pytest.approx(0.35), 2)
    assert means["2", 0] == (pytest.approx(-0.4), 1)  # of the one round that it took part in
    assert means["3", 1] == (0.0, 1)
    assert ("0", 1) not in means


def test_both_maps_have_the_same_clients(tmp_path):
    found = heat_map(read_record(make_run(tmp_path, [result(1, TRACED[:1]), result(2, TRACED[1:])])))
    assert [row.name for row in found.rows] == ["0", "1", "2", "3", "4"]
    assert [name for _, name in found.classes] == list(NAMES)
    for row, counts in zip(found.rows, COUNTS, strict=True):
        assert [cell.text for cell in row.held] == [str(count or "") for count in counts]
        assert [cell.level for cell in row.held] == [count / 9 for count in counts]
    assert [cell.text for cell in found.rows[0].contributed] == ["+.3", "", "", ""]
    assert [cell.level for cell in found.rows[3].contributed] == [
        pytest.approx(0.9),
        0.0,
        None,
        None,
    ]  # 0 is not missing
    assert [cell.level for cell in found.rows[2].contributed] == [
        pytest.approx(-0.4),
        1.0,
        None,
        None,
    ]  # against, and for
    assert (
        found.rows[2].contributed[0].words
        == "client 2, predicted ant: mean contribution \N{MINUS SIGN}.400 logits over 1 traced inputs"
    )
    assert "no traced input" in found.rows[3].contributed[2].words
    assert all(cell.level is None for cell in found.rows[1].contributed)  # it took no part
    assert (found.most_held, found.most_contributed, found.not_shown) == (9, 1.0, ())


def test_a_mean_says_whether_it_is_settled(tmp_path):
    many = [part(index, 0, 0, k0=1.0 + index / 10, k2=(-1.0) ** index) for index in range(12)]
    few = [part(20 + index, 1, 1, k0=1.0, k2=0.5) for index in range(3)]
    found = heat_map(read_record(make_run(tmp_path, [result(1, [*many, *few])])))
    rows = {row.name: row.contributed for row in found.rows}
    assert [cell.is_open for cell in rows["0"][:2]] == [False, True]  # of twelve inputs; of three
    assert rows["2"][0].is_open  # of twelve, as often for as against
    assert "over 12 traced inputs, 12 of them different; 95 % interval +1." in rows["0"][0].words


def test_a_faulty_client_has_the_labels_it_trains_on(tmp_path):
    run = make_run(tmp_path, [result(1)], "fault=label_flip", "fault.clients=[2]", fault=FAULT)
    found = heat_map(read_record(run))
    assert [(row.name, row.note) for row in found.rows[2:4]] == [("2", "faulty"), ("2", "as trained on")]
    assert [cell.text for cell in found.rows[3].held] == ["7", "", "", "2"]
    assert found.rows[3].contributed == ()
    assert found.most_contributed is None


def test_what_is_left_out_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(heat, "MOST_CELLS", 1)
    monkeypatch.setattr(heat, "LEAST_CLIENTS", 2)
    monkeypatch.setattr(heat, "MOST_CLASSES", 1)
    found = heat_map(read_record(make_run(tmp_path, [result(1, TRACED)])))
    assert [row.name for row in found.rows] == [
        "2",
        "3",
    ]  # 0.6 and 0.9 in all, or 1.4 and 0.9 without signs; client 0 has 0.7
    assert found.classes == ((0, "ant"),)
    assert found.not_shown == (
        "2 of 5 clients are shown: the faulty ones, then those with the largest contributions",
        "1 of 4 classes are shown: those that were predicted most often",
    )


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [(0.254, 2, "+.25"), (-0.254, 2, f"{MINUS}.25"), (-0.004, 2, "0"), (1.26, 1, "+1.3"), (-12.4, 0, f"{MINUS}12")],
)
def test_numbers_have_their_sign(value, digits, text):
    assert signed(value, digits) == text
