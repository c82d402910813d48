"""What stands in the picture of an account: its values, read back from the axes."""

import numpy as np
import pytest
from matplotlib import pyplot as plt

from tests.helpers.ledger_runs import made_results
from tracefl.provenance import Method
from tracefl.questions.ledger import ContributionLedger, RunLedger
from tracefl.questions.uncertainty import LedgerUncertainty
from tracefl.report import ledger_figure
from tracefl.report.ledger_figure import draw_ledger, mean_by_class


def run_ledger(faulty=frozenset({"1"}), **made):
    num_clients, names = made.get("num_clients", 6), ("ant", "bee", "a very long name indeed")
    results = made_results(**made)
    ledger, ids = ContributionLedger(results), tuple(map(str, range(num_clients)))
    return RunLedger(ledger, ids, names, faulty, Method(), LedgerUncertainty(results, 0, 0.5))


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """Draw an account; returns its figure, which the test closes."""
    monkeypatch.setattr(plt, "close", lambda _: None)

    def draw(found):
        draw_ledger(found, tmp_path / "ledger.png")
        assert (tmp_path / "ledger.png").stat().st_size > 5000
        return plt.gcf()

    yield draw
    monkeypatch.undo()
    plt.close("all")


def test_bars_and_maps_hold_the_means(drawn):
    found = run_ledger()
    bars, right, wrong, *_ = drawn(found).axes
    ledger, ranked = found.ledger, found.ranked
    widths = [patch.get_width() for patch in bars.patches]
    means = [ledger.tally(k, correct).mean for correct in (True, False) for k in ranked]
    assert np.allclose(widths, [np.nan if m is None else m for m in means], equal_nan=True)
    assert [text.get_text() for text in bars.get_yticklabels()] == [f"{k} ({len(ledger.rounds_of[k])})" for k in ranked]
    marked = [k for k, text in zip(ranked, bars.get_yticklabels(), strict=True) if text.get_color() != "black"]
    assert marked == ["1"]
    for ax, correct in ((right, True), (wrong, False)):
        shown = ax.images[0].get_array()
        assert np.allclose(shown.filled(np.nan), mean_by_class(found, ranked, correct), equal_nan=True)
        low, high = ax.images[0].get_clim()
        assert low == -high
        assert high >= np.abs(shown).max()


def test_means_by_class():
    found = run_ledger()
    grid = mean_by_class(found, ["0", "5"], True)
    for number, tally in found.ledger.by_class("0", True).items():
        assert grid[0, number] == tally.mean
    assert np.isnan(grid[1]).all()


def test_of_many_clients_the_two_ends_are_drawn(drawn):
    found = run_ledger(faulty=None, rounds=60, num_clients=50, untraced=())
    assert len(found.ranked) > 40
    figure = drawn(found)
    names = [text.get_text().split()[0] for text in figure.axes[0].get_yticklabels()]
    assert names == [*found.ranked[:20], *found.ranked[-20:]]
    assert f"20 at each end of {len(found.ranked)}" in figure.get_suptitle()


def test_a_kind_that_was_not_traced_is_empty(drawn, monkeypatch):
    found = run_ledger()
    found.ledger._tallies = {k: v for k, v in found.ledger._tallies.items() if k[1]}
    figure = drawn(found)
    assert figure.axes[2].images[0].get_array().mask.all()
    assert ledger_figure._MOST_CLIENTS == 40
