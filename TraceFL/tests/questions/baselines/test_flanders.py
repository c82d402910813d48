"""FLANDERS, against fits by least squares written out."""

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from tests.helpers.evidence import cnn_evidence, with_history
from tests.helpers.federations import flipping_federation
from tracefl.questions.baselines import RULES, NotApplicableError
from tracefl.questions.baselines.flanders import flanders, forecast


def fit_slowly(given, wanted):
    """The A with the least sum of |wanted_t - A given_t|^2 + |A|^2, as one problem of least squares."""
    given, wanted = torch.cat(list(given), dim=1), torch.cat(list(wanted), dim=1)
    rows = torch.cat([given.t(), torch.eye(len(given), dtype=torch.float64)])
    aims = torch.cat([wanted.t(), torch.zeros(len(given), len(wanted), dtype=torch.float64)])
    return torch.linalg.lstsq(rows, aims).solution.t()


def forecast_slowly(series, iterations):
    b = torch.eye(series.shape[2], dtype=torch.float64)
    for _ in range(iterations):
        a = fit_slowly([x @ b for x in series[:-1]], list(series[1:]))
        b = fit_slowly([(a @ x).t() for x in series[:-1]], [x.t() for x in series[1:]]).t()
    return a @ series[-1] @ b


@pytest.mark.parametrize("width", [3, 40])  # fewer and more columns than clients and rounds
def test_the_forecast_agrees_with_a_slow_reading(width):
    series = torch.rand(4, 5, width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert_close(forecast(series, 3), forecast_slowly(series, 3))


def test_a_series_that_follows_the_model_is_foretold():
    generator = torch.Generator().manual_seed(0)
    turn = torch.linalg.qr(torch.randn(4, 4, generator=generator, dtype=torch.float64)).Q
    series = [100 * torch.rand(4, 6, generator=generator, dtype=torch.float64)]
    for _ in range(5):
        series.append(turn @ series[-1])
    error = forecast(torch.stack(series[:-1]), 100) - series[-1]
    assert float(error.norm() / series[-1].norm()) < 1e-2


def test_the_suspicion_is_the_distance_from_the_forecast():
    evidence = with_history(cnn_evidence(5))
    names = [name for name, _ in evidence.model.named_parameters()]
    weights = torch.stack(
        [
            torch.stack([torch.cat([sent[name].reshape(-1) for name in names]) for sent in record.clients.values()])
            for record in evidence.rounds
        ]
    )  # (T, K, P)
    low, high = weights[:-1].min(), weights[:-1].max()
    scaled = (weights - low) / (high - low)
    expected = (scaled[-1] - forecast_slowly(scaled[:-1], 2)).square().sum(dim=1).sqrt()
    assert_close(flanders(evidence, num_parameters=10_000, max_iterations=2), expected)


def test_some_parameters_are_drawn():
    evidence = with_history(cnn_evidence(5))
    assert not torch.equal(
        flanders(evidence, num_parameters=20), flanders(replace(evidence, seed=1), num_parameters=20)
    )


@pytest.mark.parametrize("from_round", [1, 4])
def test_it_finds_the_client_that_flips(from_round):
    assert int(RULES["flanders"](flipping_federation(from_round=from_round)).argmax()) == 7


def test_it_needs_two_earlier_rounds_of_the_same_clients():
    evidence = with_history(cnn_evidence(4), rounds=2)
    with pytest.raises(NotApplicableError, match="flanders needs the weights of the 2 rounds before this one, and has"):
        RULES["flanders"](replace(evidence, history=()))
    earlier = evidence.history[0]()
    absent = replace(earlier, clients={k: v for k, v in earlier.clients.items() if k != "3"})
    with pytest.raises(NotApplicableError, match="client 3 did not take part in round 1"):
        RULES["flanders"](replace(evidence, history=(lambda: absent, evidence.history[1])))
