"""Federations without Flower's network: a plan, hooks that keep what they are told, and clients that do not train."""

from dataclasses import dataclass, field

import torch

from tracefl.errors import RoundFailedError
from tracefl.federation.plan import FederationHooks, FederationPlan, RoundOutcome
from tracefl.learning.settings import TrainingSettings
from tracefl.learning.training import Evaluation
from tracefl.provenance import RoundRecord


def make_plan(**changes):
    defaults = {
        "client_ids": ("0", "1", "2", "3"),
        "num_rounds": 2,
        "clients_per_round": 2,
        "min_clients": 1,
        "timeout_seconds": None,
        "strategy": "fedavg",
        "proximal_mu": 0.0,
        "seed": 42,
        "initial_weights": {"w": torch.zeros(2)},
        "training": TrainingSettings(epochs=1, optimizer="adam", lr=0.1, batch_size=1),
        "client_job": "{}",
    }
    return FederationPlan(**(defaults | changes))


@dataclass
class Told:
    """What a federation has told its hooks."""

    sampled: list[tuple[int, tuple[str, ...]]] = field(default_factory=list)
    replies: int = 0
    outcomes: list[RoundOutcome] = field(default_factory=list)
    joined: list[tuple[str, list[int]]] = field(default_factory=list)


def make_evaluation(is_sound=True):
    """The server's evaluation of a model, where there is no model."""
    return Evaluation(0.5, 1.0, torch.zeros(1, dtype=torch.int64), torch.ones(1), 1.0 if is_sound else torch.inf)


def make_hooks(told=None, is_sound=lambda weights: True):
    """``is_sound``: whether a state dict gives sound logits."""
    told = Told() if told is None else told

    def replied():
        told.replies += 1

    return FederationHooks(
        on_sampled=lambda server_round, clients: told.sampled.append((server_round, clients)),
        on_reply=replied,
        evaluate=lambda weights: make_evaluation(is_sound(weights)),
        on_round=told.outcomes.append,
        on_joined=lambda client_id, client: told.joined.append((client_id, list(client.counts))),
    )


class ScriptedFederation:
    """A session's rounds without training: the clients send back what they were sent."""

    def __init__(self, clients, rounds):
        self.clients, self.rounds = clients, rounds

    def run(self, plan, hooks):
        weights, share = plan.initial_weights, 1 / len(self.clients)
        for n in range(plan.rounds_done + 1, min(plan.rounds_done + self.rounds, plan.num_rounds) + 1):
            hooks.on_sampled(n, self.clients)
            clients = dict.fromkeys(self.clients, weights)
            record = RoundRecord(n, clients, dict.fromkeys(self.clients, share), weights, weights)
            hooks.on_round(RoundOutcome(record, 1.0, hooks.evaluate(weights)))
        if plan.rounds_done + self.rounds < plan.num_rounds:
            raise RoundFailedError("everybody is gone")
