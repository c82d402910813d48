"""What stands in the picture of a replay: its values, read back from the axes."""

import numpy as np
import pytest
from matplotlib import pyplot as plt

from tracefl.learning.measures import Measures
from tracefl.questions.replay import Replay, ReplayedRound
from tracefl.report import style
from tracefl.report.replay_figure import draw_replay

NAMES = ("ant", "bee", r"$\frac$", "a very long name indeed")


def made(rounds=3, names=NAMES, attack=True):
    def measures(value):
        by_class = tuple(None if n == 2 else min(1.0, value + 0.1 * (n % 3)) for n in range(len(names)))
        return Measures(value, value / 2 if attack else None, by_class)

    replayed = [
        ReplayedRound(n, ("0", "1"), ("2",), n == 1, measures(0.2 * n), measures(0.15 * n + 0.1))
        for n in range(1, rounds + 1)
    ]
    return Replay("run", "reaggregate", 1, ("2",), tuple(replayed), names, "none", ())


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """Draw a replay; returns its figure."""
    monkeypatch.setattr(style.plt, "close", lambda _: None)

    def draw(replay):
        assert draw_replay(replay, tmp_path / "a") == [tmp_path / "a.png", tmp_path / "a.pdf"]
        assert all((tmp_path / f"a.{kind}").stat().st_size > 5000 for kind in ("png", "pdf"))
        return plt.gcf()

    yield draw
    monkeypatch.undo()
    plt.close("all")


def test_the_lines_are_the_rounds(drawn):
    replay = made()
    figure = drawn(replay)
    titles = [ax.get_title() for ax in figure.axes]
    assert titles == ["global accuracy", "attack success", "accuracy of each class after round 3"]
    for ax, measure in zip(figure.axes, ("accuracy", "attack_success"), strict=False):
        for line, side in zip(ax.get_lines(), ("before", "after"), strict=True):
            assert list(line.get_xdata()) == [1, 2, 3]
            assert list(line.get_ydata()) == [100 * getattr(getattr(r, side), measure) for r in replay.rounds]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["with all clients", "without client 2"]
    assert figure.get_supxlabel() == "from round 1, averaged again: an estimate"


def test_the_classes_after_the_last_round(drawn):
    replay = made()
    classes = drawn(replay).axes[-1]
    for line, side in zip(classes.get_lines(), ("before", "after"), strict=True):
        values = [np.nan if v is None else 100 * v for v in getattr(replay.rounds[-1], side).class_accuracy]
        assert np.array_equal(line.get_ydata(), values, equal_nan=True)
    assert [text.get_text() for text in classes.get_xticklabels()][:3] == ["ant", "bee", r"$\frac$"]


def test_without_an_attack_there_is_no_panel_of_it(drawn):
    assert [ax.get_title() for ax in drawn(made(attack=False)).axes][0::2] == ["global accuracy"]


def test_of_many_classes_the_first_are_drawn(drawn):
    classes = drawn(made(names=tuple(map(str, range(100))))).axes[-1]
    assert len(classes.get_lines()[0].get_ydata()) == 40
    assert classes.get_title() == "accuracy of each class after round 3, the first 40 of 100"
