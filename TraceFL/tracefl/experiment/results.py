"""A run's results: a round's row, and what results.json sums up."""

import dataclasses
from typing import Any

from tracefl.federation.plan import RoundOutcome
from tracefl.learning.training import Evaluation
from tracefl.provenance import summarize
from tracefl.questions.trace import RoundTrace

_NO_MEAN = ("round", "epsilon_by_client", "class_accuracy")


def _row(
    outcome: RoundOutcome, evaluation: Evaluation, trace: RoundTrace, train_seconds: float, evaluate_seconds: float
) -> dict[str, Any]:
    """Return a round's row of rounds.csv."""
    return {
        "round": outcome.record.server_round,
        "global_loss": evaluation.loss,
        "global_accuracy": evaluation.accuracy,
        **dataclasses.asdict(summarize(trace.traced)),
        "clients": len(outcome.record.clients),
        "clients_left_out": len(outcome.left_out),
        "train_loss": outcome.train_loss,
        "train_seconds": round(train_seconds, 3),
        "evaluate_seconds": round(evaluate_seconds, 3),
        "provenance_seconds": round(trace.provenance_seconds, 4),
        "counterfactual_seconds": round(trace.counterfactual_seconds, 4),
    }
