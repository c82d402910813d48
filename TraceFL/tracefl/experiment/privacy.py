"""Accounting of a run's differential privacy."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from tracefl.federation.plan import RoundOutcome
from tracefl.learning.examples import Examples
from tracefl.learning.privacy.accounting import PrivacyAccountant, client_dp_sgd
from tracefl.learning.privacy.settings import AdaptivePrivacySettings, DpSgdSettings, Privacy, ServerPrivacy
from tracefl.records.result import RoundResult
from tracefl.records.settings import Settings


def make_accountant(
    settings: Settings, model: nn.Module, server: Examples, num_examples: Mapping[str, int]
) -> PrivacyAccountant | None:
    """Return the accountant of the clients' DP-SGD; None without DP-SGD.

    Args:
        settings: The run's configuration.
        model: The initial model.
        server: The server's examples; two of them are run through the model.
        num_examples: Client id to number of training examples.

    Raises:
        ConfigError: A layer has no per-example gradients, or the target epsilon cannot be met.
    """
    privacy = settings.privacy
    if not isinstance(privacy, DpSgdSettings):
        return None
    from tracefl.learning.privacy.per_sample import check_per_sample_gradients  # brings Opacus

    check_per_sample_gradients(model, *server.batch(torch.arange(min(2, len(server)))))
    training, num_rounds = settings.training, settings.num_rounds
    clients = {client_id: client_dp_sgd(privacy, training, n, num_rounds) for client_id, n in num_examples.items()}
    return PrivacyAccountant(clients, privacy.target_delta)


def resumed_privacy(privacy: Privacy | None, rounds: Sequence[RoundResult]) -> ServerPrivacy | None:
    """Return the server's settings for the rounds after the recorded ones; None where it neither clips nor adds noise.

    An adaptive clipping norm continues from the last recorded round.
    """
    if isinstance(privacy, AdaptivePrivacySettings) and rounds:
        return dataclasses.replace(privacy, initial_clipping_norm=rounds[-1].row["next_clipping_norm"])
    return privacy if isinstance(privacy, ServerPrivacy) else None


def privacy_columns(outcome: RoundOutcome, accountant: PrivacyAccountant | None) -> dict[str, Any]:
    """Account for a round and return its privacy columns of rounds.csv, with None where they do not apply."""
    spent = {}
    if accountant is not None:
        spent = accountant.add_round(sorted((*outcome.record.clients, *outcome.dropped), key=int))
    return {
        "clipping_norm": outcome.clipping_norm,
        "next_clipping_norm": outcome.next_clipping_norm,
        "epsilon": max(spent.values(), default=None),
        "epsilon_by_client": " ".join(f"{client}:{epsilon:.6g}" for client, epsilon in spent.items()) or None,
    }
