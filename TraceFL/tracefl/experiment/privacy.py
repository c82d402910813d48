"""Accounting of a run's differential privacy."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from tracefl.experiment.settings import Settings
from tracefl.federation.plan import RoundOutcome
from tracefl.learning.examples import Examples
from tracefl.learning.privacy import PrivacySettings
from tracefl.learning.privacy.accounting import DpSgd, PrivacyAccountant, client_dp_sgd
from tracefl.records.result import RoundResult


def make_accountant(
    settings: Settings, model: nn.Module, server: Examples, num_examples: Mapping[str, int]
) -> PrivacyAccountant | None:
    """Return the accountant of the clients' DP-SGD, None without DP-SGD.

    Args:
        settings: The run's.
        model: The initial model.
        server: The server's examples; two of them are put through the model.
        num_examples: Client id to number of training examples.

    Raises:
        ConfigError: A layer has no per-example gradients, or the target epsilon cannot be met.
    """
    privacy = settings.privacy
    if not privacy.is_dp_sgd:
        return None
    from tracefl.learning.privacy.per_sample import check_per_sample_gradients  # brings Opacus

    check_per_sample_gradients(model, *server.batch(torch.arange(min(2, len(server)))))
    assert privacy.target_delta is not None
    clients = {client_id: client_dp_sgd_of(settings, n) for client_id, n in num_examples.items()}
    return PrivacyAccountant(clients, privacy.target_delta)


def client_dp_sgd_of(settings: Settings, num_examples: int) -> DpSgd:
    """Return the DP-SGD of a client with ``num_examples`` training examples."""
    return client_dp_sgd(settings.privacy, settings.training, num_examples, settings.config["num_rounds"])


def resumed_privacy(privacy: PrivacySettings, rounds: Sequence[RoundResult]) -> PrivacySettings:
    """Return the settings for the rounds after the recorded ones: an adaptive clipping norm continues from the last."""
    if privacy.initial_clipping_norm is None or not rounds:
        return privacy
    return dataclasses.replace(privacy, initial_clipping_norm=rounds[-1].row["next_clipping_norm"])


def privacy_columns(outcome: RoundOutcome, accountant: PrivacyAccountant | None) -> dict[str, Any]:
    """Account for a round and return its privacy columns of rounds.csv, None where they do not apply."""
    spent = {}
    if accountant is not None:
        spent = accountant.add_round(sorted((*outcome.record.clients, *outcome.left_out), key=int))
    return {
        "clipping_norm": outcome.clipping_norm,
        "next_clipping_norm": outcome.next_clipping_norm,
        "epsilon": max(spent.values(), default=None),
        "epsilon_by_client": " ".join(f"{client}:{epsilon:.6g}" for client, epsilon in spent.items()) or None,
    }
