import pytest

from tests.helpers.made_page import result
from tracefl.report.page.chart import rounds_chart


def chart(*accuracies, suspicious=(), **row):
    return rounds_chart([result(n, global_accuracy=a, **row).row for n, a in enumerate(accuracies, 1)], suspicious)


def test_places_by_hand():
    # Field: 54 to 946 across, 10 to 260 down; of 4 rounds each is 223 wide, its middle 111.5 from its left.
    (curve,) = chart(0.0, 1.0, 0.5, 0.25).curves
    (piece,) = curve.pieces
    assert [(point.x, point.y) for point in piece] == [(165.5, 260), (388.5, 10), (611.5, 135), (834.5, 197.5)]
    assert piece[3].words == "round 4: global accuracy 25.0%"


def test_what_was_not_measured_is_a_gap_and_is_counted():
    drawn = chart(0.5, None, 0.5, 0.5)
    (curve,) = drawn.curves
    assert [len(piece) for piece in curve.pieces] == [1, 2]
    assert drawn.gaps == (
        "global accuracy: 1 of 4 rounds have no value",
        "localization accuracy: 4 of 4 rounds have no value",
        "localization by chance: 4 of 4 rounds have no value",
    )


def test_a_round_that_is_not_recorded_is_a_gap():
    rows = [result(n, global_accuracy=0.5, localization_accuracy=0.9, chance_accuracy=0.3).row for n in (1, 2, 4)]
    drawn = rounds_chart(rows, ())
    assert [len(piece) for piece in drawn.curves[0].pieces] == [2, 1]
    assert drawn.gaps == ("1 round between 1 and 4 not recorded",)


def test_localization_stands_with_its_chance():
    drawn = chart(0.5, 0.6, localization_accuracy=0.9, chance_accuracy=0.3)
    assert [curve.style for curve in drawn.curves] == ["accuracy", "localization", "chance"]
    assert drawn.gaps == ()


@pytest.mark.parametrize(
    ("rounds", "ticks", "marks"), [(1, [1], True), (3, [1, 2, 3], True), (100, list(range(10, 101, 10)), False)]
)
def test_few_ticks_and_marks(rounds, ticks, marks):
    drawn = chart(*[0.5] * rounds, suspicious={1})
    assert [n for _, n in drawn.x_ticks] == ticks
    assert drawn.curves[0].marks == marks
    ((left, wide, number),) = drawn.bands
    assert (left, number) == (54, 1)
    assert wide == pytest.approx(892 / max(rounds, 2), abs=0.1)


def test_a_value_that_is_no_number_is_a_gap():
    assert chart(0.5, float("nan")).gaps[0] == "global accuracy: 1 of 2 rounds have no value"
