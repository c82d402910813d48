"""What the figures show, read from them before they are closed: values and words, no pixels."""

import itertools
import math

import pytest
from matplotlib import pyplot as plt

from tests.helpers.made_exhibits import made_run
from tracefl.paper.curves import figure_pages
from tracefl.paper.exhibits import EXHIBITS
from tracefl.paper.figures import draw_page

DENSENET = ("experiment=figure3", "model=densenet121", "dataset=mnist")
FIGURE2 = ("experiment=figure2", "model=resnet18", "dataset=mnist")


@pytest.fixture
def draw(tmp_path, monkeypatch):
    """Draw the first page of some runs; returns the figure, which stays open until the test ends."""
    figures = []
    close = plt.close
    monkeypatch.setattr(plt, "close", figures.append)

    def draw(name, *runs):
        exhibit = EXHIBITS[name]
        words, panels = next(iter(figure_pages(exhibit, runs).items()))
        files = draw_page(exhibit, words, panels, exhibit.missing(runs), tmp_path / name)
        assert [file.name for file in files] == [f"{name}.png", f"{name}.pdf"]
        assert sorted(file.name for file in tmp_path.iterdir() if file.is_file()) == [f"{name}.pdf", f"{name}.png"]
        return figures[-1]

    yield draw
    for figure in figures:
        close(figure)


def lines_of(ax):
    """Return the drawn points, by name; those that are not there are left out."""
    drawn = {}
    for line in ax.lines:
        points = [(x, y) for x, y in zip(*line.get_data(), strict=True) if not math.isnan(y)]
        drawn.setdefault(line.get_label(), []).extend(points)
    return drawn


def texts_of(figure):
    return " ".join(text.get_text() for text in figure.findobj(plt.Text)).replace("\n", " ")


def test_values_chance_and_published_marks_over_alpha(draw, tmp_path):
    figure = draw(
        "figure3",
        made_run(tmp_path, [(0.2, 0.8, 0.2), (0.6, 1.0, 0.4)], *DENSENET, dirichlet_alpha=0.1, seed=1),
        made_run(tmp_path, [(0.4, 0.6, 0.2), (0.3, 0.6, 0.2)], *DENSENET, dirichlet_alpha=0.1, seed=2),
        made_run(tmp_path, [(0.5, 1.0, 0.7), (0.9, 1.0, 0.7)], *DENSENET, dirichlet_alpha=0.3, seed=1),
    )
    (ax,) = figure.axes
    drawn = lines_of(ax)
    assert drawn["localization_accuracy"] == [(0.1, pytest.approx(75)), (0.3, pytest.approx(100))]
    assert drawn["chance_accuracy"] == [(0.1, pytest.approx(25)), (0.3, pytest.approx(70))]
    assert drawn["global_accuracy"] == [(0.1, pytest.approx(50)), (0.3, pytest.approx(90))]
    # 0.2 has no run: the line breaks there, and nothing is at zero
    curve = next(line for line in ax.lines if line.get_label() == "localization_accuracy")
    assert math.isnan(curve.get_ydata()[1])
    assert drawn["published localization_accuracy"] == [(n / 10, pytest.approx(100)) for n in range(1, 11)]
    assert drawn["published global_accuracy"][1] == (0.2, pytest.approx(55.62))
    # the band of localization at alpha 0.1: 75 ± 21.2 (0.9 and 0.6)
    (band,) = [band for band in ax.collections if (0.1, pytest.approx(75 - 30 / math.sqrt(2))) in corners(band)]
    assert (0.1, pytest.approx(75 + 30 / math.sqrt(2))) in corners(band)
    for words in (
        "mean ± standard deviation over 2 seeds",
        "runs: 100 clients, 10 a round, 2 rounds; published at the paper's size",
        "no run: 60 of the paper's 60 settings",
    ):
        assert words in texts_of(figure)


def corners(band):
    return [tuple(corner) for path in band.get_paths() for corner in path.vertices]


def test_a_run_of_the_paper_s_setting_stands_beside_its_number(draw, tmp_path):
    rounds = [(0.5, 0.9, 0.3)] * 49 + [(0.5, "", "")]
    figure = draw("figure2", made_run(tmp_path, rounds, *FIGURE2, dirichlet_alpha=0.1))
    drawn = lines_of(figure.axes[0])
    assert [x for x, _ in drawn["localization_accuracy"]] == list(range(1, 50))
    assert drawn["published localization_accuracy"] == [(pytest.approx(1.06), pytest.approx(81.98))]
    assert drawn["published worst_round"] == [(pytest.approx(1.06), pytest.approx(25))]
    assert drawn["published global_accuracy"] == [(pytest.approx(1.06), pytest.approx(54.69))]
    words = texts_of(figure)
    assert "Dirichlet alpha 0.1; no run: 11 of the paper's 12 settings" in words
    assert "at the paper's size" not in words


def test_a_run_beyond_the_paper_has_no_published_marks(draw, tmp_path):
    digits = ("experiment=figure3", "model=resnet18", "dataset=digits")
    figure = draw("figure3", *(made_run(tmp_path, [(0.5, 0.9, 0.3)], *digits, seed=seed) for seed in (1, 2, 3)))
    assert set(lines_of(figure.axes[0])) == {"localization_accuracy", "chance_accuracy", "global_accuracy"}
    assert "mean ± standard deviation over 3 seeds" in texts_of(figure)
    assert "published" not in texts_of(figure)


@pytest.mark.parametrize("number", [1, 4, 7])
def test_the_page_is_a_column_wide_and_every_letter_of_7_points(draw, tmp_path, number):
    runs = [made_run(tmp_path, [(0.5, 0.9, 0.3)] * 2, *FIGURE2, batch_size=size) for size in range(1, number + 1)]
    figure = draw("figure2", *runs)
    assert figure.get_size_inches()[0] == 3.3
    shown = [ax for ax in figure.axes if ax.axison]
    assert len(shown) == number
    assert {text.get_fontsize() for text in figure.findobj(plt.Text) if text.get_text()} == {7.0}
    titles = [ax.get_title() for ax in shown]
    assert len(set(titles)) == number
    figure.canvas.draw()
    boxes = [ax.title.get_window_extent() for ax in shown]
    for one, other in itertools.pairwise(boxes):
        assert not one.overlaps(other)


def test_noise_is_on_a_logarithmic_axis_which_shows_zero_too(draw, tmp_path):
    figure4 = ("experiment=figure4", "privacy.clipping_norm=15")
    runs = [
        made_run(tmp_path, [(0.5, 0.9, 0.3)], *figure4, f"privacy.noise_multiplier={noise}") for noise in (0.0, 0.001)
    ]
    figure = draw("figure4", *runs)
    assert [x for x, _ in lines_of(figure.axes[0])["localization_accuracy"]] == [0.0, 0.001]
    assert figure.axes[0].get_xscale() == "symlog"
    assert draw("figure4", runs[1]).axes[0].get_xscale() == "log"


def test_of_many_rounds_one_alone_is_marked(draw, tmp_path):
    rounds = [(0.5, 0.9 if n in (3, 9, 10) else "", 0.3 if n in (3, 9, 10) else "") for n in range(1, 13)]
    figure = draw("figure2", made_run(tmp_path, rounds, *FIGURE2))
    (line,) = [line for line in figure.axes[0].lines if line.get_label() == "localization_accuracy"]
    assert line.get_marker() == "s"
    assert list(line.get_markevery()) == [2]
