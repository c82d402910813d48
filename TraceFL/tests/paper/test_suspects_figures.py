"""What the figures of the rules show, read from the figure before it is closed."""

import pytest
from matplotlib import pyplot as plt

from tests.helpers.made_runs import FLIP, does_not_apply, found, make_faulty_run
from tracefl.paper.collected_run import read_run
from tracefl.paper.suspects_figures import draw_seconds, draw_suspects
from tracefl.paper.suspects_settings import suspects_settings


@pytest.fixture
def panels(tmp_path, monkeypatch):
    """Draw runs; returns the figure's panels: title to line's name to its points, in percent."""
    drawn = {}
    close = plt.close

    def remember(figure):
        for ax in figure.axes:
            drawn[ax.get_title()] = {line.get_label(): list(zip(*line.get_data(), strict=True)) for line in ax.lines}
        close(figure)

    monkeypatch.setattr(plt, "close", remember)

    def draw(*runs):
        path = tmp_path / "flipped_share.png"
        settings = suspects_settings(
            read_run(make_faulty_run(tmp_path, rows, *overrides, fault=FLIP | fault), "run", {})
            for rows, fault, overrides in runs
        )
        assert draw_suspects(settings, path) == path.exists()
        return drawn

    return draw


def rows(provenance, krum):
    return [found(1, "provenance", provenance), found(1, "krum", krum), does_not_apply(1, "feddebug", "no ReLU")]


def test_a_line_for_each_rule_over_the_shares(panels):
    drawn = panels(
        (rows(1.0, 0.5), {"share": 1.0}, ["seed=1"]),
        (rows(0.8, 0.5), {"share": 1.0}, ["seed=2"]),
        (rows(0.6, 0.1), {"share": 0.1}, []),
        (rows(0.7, 0.2), {"share": 0.1}, ["dirichlet_alpha=1.0"]),  # one share alone: no curve
        (rows(0.7, 0.2), {"name": "free_rider", "share": None, "scale": 0.001}, []),
    )
    (lines,) = drawn.values()
    assert list(drawn) == ["resnet18 mnist alpha 0.3\nlabel_flip, 1 of 10"]
    assert set(lines) == {"provenance", "krum", "chance"}  # a rule that does not apply has no line
    assert lines["provenance"] == [pytest.approx((10, 60)), pytest.approx((100, 90))]
    assert lines["krum"] == [pytest.approx((10, 10)), pytest.approx((100, 50))]
    assert lines["chance"] == [pytest.approx((10, 10)), pytest.approx((100, 10))]


def test_a_panel_for_each_setting(panels):
    faults = [({"share": share}, [f"dirichlet_alpha={alpha}"]) for share in (0.1, 0.5) for alpha in (0.3, 1.0)]
    drawn = panels(*((rows(1.0, 0.5), *more) for more in faults))
    assert list(drawn) == [f"resnet18 mnist alpha {alpha}\nlabel_flip, 1 of 10" for alpha in (0.3, 1.0)]


def test_nothing_is_drawn_of_one_share(panels):
    assert panels((rows(1.0, 0.5), {}, []), (rows(1.0, 0.5), {"clients": [0, 1]}, [])) == {}


def test_seconds_beside_the_published_ones(tmp_path, monkeypatch):
    drawn = {}
    close = plt.close

    def remember(figure):
        (ax,) = figure.axes
        rules = [label.get_text() for label in ax.get_yticklabels()]
        for line in ax.lines:
            points = [(x, rules[round(y)]) for x, y in zip(*line.get_data(), strict=True)]
            drawn.setdefault(line.get_label(), []).append(points)
        close(figure)

    monkeypatch.setattr(plt, "close", remember)
    measured = {
        "gpt dbpedia_14, 10 clients": {"provenance": 0.1, "instant": 0.0},
        "resnet18 mnist, 10 clients": {"provenance": 0.3, "feddebug": 0.2, "artifact": 0.4},
    }
    files = draw_seconds(measured, tmp_path / "seconds")
    assert [file.name for file in files] == ["seconds.png", "seconds.pdf"]
    assert all(file.stat().st_size > 1000 for file in files)
    published = drawn.pop("published mean and range (Figure 6, A100 cluster)")
    # Figure 6: TraceFL 2.6 to 5.9, on average 3.7 s; FedDebug 1.1 s
    artifact = [(2.6, "artifact"), (3.7, "artifact"), (5.9, "artifact")]
    assert published == [artifact, [(1.1, "feddebug")] * 3]
    assert drawn == {
        "GPT DBpedia, 10 clients": [[(0.1, "provenance")]],
        "ResNet-18 MNIST, 10 clients": [[(0.2, "feddebug"), (0.3, "provenance"), (0.4, "artifact")]],
    }


def test_nothing_timed_is_nothing_drawn(tmp_path):
    assert draw_seconds({"gpt dbpedia_14": {}}, tmp_path / "none") == []
    assert list(tmp_path.iterdir()) == []
