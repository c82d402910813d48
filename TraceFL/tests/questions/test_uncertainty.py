"""A ledger's intervals, and that a mean over a few inputs leads no table."""

import pytest

from tests.helpers.ledger_runs import made_results
from tests.helpers.made_page import result, traced_input
from tracefl.common.bootstrap import FEWEST
from tracefl.provenance import Method
from tracefl.questions.ledger import ContributionLedger, RunLedger
from tracefl.questions.uncertainty import LedgerUncertainty


def ledger_of(results):
    ids = sorted({client for each in results for client in each.client_weights}, key=int)
    uncertainty = LedgerUncertainty(results, 3, 0.5)
    return RunLedger(ContributionLedger(results), ids, ["0", "1", "2"], None, Method(), uncertainty)


def traced(index, label, predicted, **contributions):
    parts = tuple((client.removeprefix("k"), value) for client, value in contributions.items())
    return traced_input(index, label, predicted, {client: 0.5 for client, _ in parts}, contributions=parts)


def test_a_mean_over_a_few_inputs_does_not_lead():
    many = [traced(index, 0, 0, k0=1.0 + index / 10, k1=-0.5) for index in range(FEWEST)]
    few = [traced(index, 1, 1, k2=9.0, k0=1.0) for index in range(FEWEST - 1)]
    rounds = [result(1, many, weights={"0": 0.5, "1": 0.5}), result(2, few, weights={"0": 0.5, "2": 0.5})]
    found = ledger_of(rounds)
    assert found.usefulness("2") == 9.0
    assert found.ranked == ["0", "1", "2"]
    assert [found.uncertainty.is_few(client) for client in found.ranked] == [False, False, True]
    again = ledger_of([*rounds, result(3, few, weights={"0": 0.5, "2": 0.5})])  # the same inputs are no new ones
    assert again.ranked == ["0", "1", "2"]


def test_intervals_hold_the_means_and_totals_and_usefulness():
    results = made_results(num_classes=3)
    found = ledger_of(results)
    held = 0
    for client in found.client_ids:
        for correct in (True, False):
            for wanted, tally in [
                (None, found.ledger.tally(client, correct)),
                *found.ledger.by_class(client, correct).items(),
            ]:
                which = client, correct, wanted
                rows = [
                    t for r in results for t in r.traced
                    if client in dict(t.contributions) and (t.label == t.predicted) == correct
                    and wanted in (None, t.predicted)
                ]  # fmt: skip
                assert found.uncertainty.inputs(*which) == len({t.input_index for t in rows})
                if (mean := found.uncertainty.mean(*which)) is None:
                    continue
                assert mean.low <= tally.mean <= mean.high
                total = found.uncertainty.total(*which)
                assert total.low <= tally.total <= total.high
                held += 1
        useful = found.uncertainty.usefulness(client)
        assert useful.low <= found.usefulness(client) <= useful.high
    assert held > 15


def test_a_constant_contribution_has_no_width():
    inputs = [traced(index, 0, 0 if index % 2 else 1, k0=2.0, k1=1.0) for index in range(20)]
    useful = ledger_of([result(1, inputs, weights={"0": 0.5, "1": 0.5})]).uncertainty.usefulness("0")
    assert (useful.low, useful.high) == (pytest.approx(2.0 - 0.5 * 2.0), pytest.approx(1.0))
