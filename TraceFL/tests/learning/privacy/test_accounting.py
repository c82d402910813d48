"""Epsilon against Opacus's accountant, told of every single step."""

import pytest
from opacus.accountants import RDPAccountant

from tests.helpers.configuration import compose_settings
from tracefl.errors import ConfigError
from tracefl.learning.privacy.accounting import PrivacyAccountant, client_dp_sgd, epsilon
from tracefl.learning.privacy.settings import DpSgdSettings
from tracefl.learning.settings import TrainingSettings

DELTA = 1e-5
TRAINING = TrainingSettings(epochs=2, batch_size=32, optimizer="adam", lr=0.01)


def dp_sgd(noise_multiplier=None, target_epsilon=None):
    return DpSgdSettings(
        noise_multiplier=noise_multiplier,
        target_epsilon=target_epsilon,
        target_delta=DELTA,
        max_grad_norm=1.0,
        max_physical_batch_size=8,
    )


def stepped(dp, rounds):
    """Return the epsilon of an accountant that is told of one step after another."""
    accountant = RDPAccountant()
    for _ in range(rounds * dp.steps):
        accountant.step(noise_multiplier=dp.noise_multiplier, sample_rate=dp.sample_rate)
    return accountant.get_epsilon(DELTA)


def test_a_clients_round():
    # 100 examples in batches of 32: 4 batches an epoch, each example in each with probability 1/4.
    dp = client_dp_sgd(dp_sgd(1.1), TRAINING, 100, num_rounds=3)
    assert (dp.sample_rate, dp.steps, dp.noise_multiplier) == (0.25, 8, 1.1)
    assert client_dp_sgd(dp_sgd(1.1), TRAINING, 32, 3).sample_rate == 1


def test_the_accountant_counts_the_rounds_that_each_client_took_part_in():
    sizes = {"3": 100, "7": 320, "8": 64}
    clients = {k: client_dp_sgd(dp_sgd(1.2), TRAINING, n, 4) for k, n in sizes.items()}
    ours = PrivacyAccountant(clients, DELTA)
    rounds = [("3", "7"), ("7",), ("3", "7", "8"), ("7", "8")]
    taken = dict.fromkeys(sizes, 0)
    for sampled in rounds:
        spent = ours.add_round(sampled)
        for client_id in sampled:
            taken[client_id] += 1
        assert spent == pytest.approx({k: stepped(clients[k], taken[k]) for k in sampled}, rel=1e-12)
    assert ours.spent("7") == pytest.approx(stepped(clients["7"], 4), rel=1e-12)
    resumed = PrivacyAccountant(clients, DELTA)
    for sampled in rounds[:2]:
        resumed.add_round(sampled)
    assert resumed.add_round(rounds[2])["3"] == pytest.approx(stepped(clients["3"], 2), rel=1e-12)


def test_epsilon_of_nothing_is_nothing():
    assert epsilon((), DELTA) == 0


def test_rounds_keep_what_they_were_when_a_clients_data_change():
    small, large = (client_dp_sgd(dp_sgd(1.2), TRAINING, n, 6) for n in (40, 4000))
    ours = PrivacyAccountant({"0": small}, DELTA)
    for _ in range(3):
        before = ours.add_round(["0"])["0"]
    ours.clients["0"] = large
    assert ours.spent("0") == before == pytest.approx(stepped(small, 3), rel=1e-12)
    accountant = RDPAccountant()
    for dp, rounds in ((small, 3), (large, 2)):
        for _ in range(rounds * dp.steps):
            accountant.step(noise_multiplier=dp.noise_multiplier, sample_rate=dp.sample_rate)
    ours.add_round(["0"])
    assert ours.add_round(["0"])["0"] == pytest.approx(accountant.get_epsilon(DELTA), rel=1e-12)


@pytest.mark.parametrize("num_rounds", [1, 15])
@pytest.mark.parametrize("target", [0.5, 3.0, 20.0])
@pytest.mark.parametrize("num_examples", [32, 100, 1000])
def test_the_target_is_never_exceeded_and_nearly_used(target, num_examples, num_rounds):
    dp = client_dp_sgd(dp_sgd(target_epsilon=target), TRAINING, num_examples, num_rounds)
    ours = PrivacyAccountant({"0": dp}, DELTA)
    spent = [ours.add_round(["0"])["0"] for _ in range(num_rounds)]
    assert spent == sorted(spent)
    assert target - 0.02 < spent[-1] <= target
    assert spent[-1] == pytest.approx(stepped(dp, num_rounds), rel=1e-12)


def test_a_target_that_no_noise_meets_is_refused():
    with pytest.raises(ConfigError, match=r"privacy.target_epsilon=1e-09 is too low for 24 steps .*; raise it"):
        client_dp_sgd(dp_sgd(target_epsilon=1e-9), TRAINING, 100, 3)


def test_dp_sgd_takes_a_target_from_the_configuration():
    settings = compose_settings("privacy=dp_sgd", "privacy.noise_multiplier=null", "privacy.target_epsilon=3")
    assert (settings.privacy.target_epsilon, settings.privacy.noise_multiplier) == (3, None)
    assert isinstance(settings.privacy, DpSgdSettings)
