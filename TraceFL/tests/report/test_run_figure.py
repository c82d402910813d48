"""A run's figure: titles, numbers in the map, and a localization that the agreement does not hide."""

from types import SimpleNamespace

import pytest
import torch
from matplotlib.figure import Figure

from tracefl.report.measure_names import MEASURES
from tracefl.report.run_figure import draw_run
from tracefl.report.style import LOOKS


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """Draw a run whose localization and agreement are equal; returns its two axes."""
    kept = []

    def keep(figure, path, **_):
        kept.append(figure.axes)
        path.touch()

    monkeypatch.setattr(Figure, "savefig", keep)
    rows = [{"round": n, **dict.fromkeys(LOOKS, 1.0)} for n in (1, 2)]
    draw_run(
        rows,
        SimpleNamespace(label_counts=torch.tensor([[7, 0], [40, 3]]), label_names=("a", "b")),
        tmp_path / "rounds.png",
    )
    return kept[0][:2]


def test_localization_lies_above_an_agreement_that_is_seen_around_it(drawn):
    lines = {line.get_label(): line for line in drawn[0].get_lines()}
    localization, agreement = (
        lines[MEASURES[column]] for column in ("localization_accuracy", "counterfactual_agreement")
    )
    assert localization.get_zorder() > max(line.get_zorder() for line in lines.values() if line is not localization)
    assert agreement.get_linewidth() > localization.get_linewidth()


def test_the_map_has_titles_and_numbers(drawn):
    assert [axes.get_title() for axes in drawn] == ["Accuracies, by round", "Who holds which class"]
    assert [text.get_text() for text in drawn[1].texts] == ["7", "0", "40", "3"]
