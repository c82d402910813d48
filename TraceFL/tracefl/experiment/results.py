"""A run's results: a round's row of rounds.csv, and the summary in results.json."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from tracefl.common.environment import describe_environment, peak_memory
from tracefl.experiment.mitigation.summary import summarize_mitigation
from tracefl.experiment.preparation import Prepared
from tracefl.federation.plan import RoundOutcome
from tracefl.provenance import summarize
from tracefl.provenance.scoring import mean_measured
from tracefl.questions.stand_outs import summarize_stand_outs
from tracefl.questions.suspects import mean_suspects
from tracefl.questions.trace import RoundTrace
from tracefl.records.result import RoundResult, times_capped, times_refused
from tracefl.records.settings import Settings

_NO_MEAN = ("round", "epsilon_by_client", "class_accuracy")


def round_row(
    outcome: RoundOutcome, trace: RoundTrace, train_seconds: float, evaluate_seconds: float
) -> dict[str, Any]:
    """Return a round's row of rounds.csv, without the columns of privacy and of the measures."""
    return {
        "round": outcome.record.server_round,
        "global_loss": outcome.evaluation.loss,
        "global_accuracy": outcome.evaluation.accuracy,
        **dataclasses.asdict(summarize(trace.traced)),
        "clients": len(outcome.record.clients),
        "clients_dropped": len(outcome.dropped),
        "train_loss": outcome.train_loss,
        "train_seconds": round(train_seconds, 3),
        "evaluate_seconds": round(evaluate_seconds, 3),
        "provenance_seconds": round(trace.provenance_seconds, 4),
        "counterfactual_seconds": round(trace.counterfactual_seconds, 4),
    }


def run_results(
    name: str, settings: Settings, prepared: Prepared, rounds: Sequence[RoundResult], seconds: float
) -> dict[str, Any]:
    """Return the content of results.json.

    Args:
        name: The run's name.
        settings: The run's configuration.
        prepared: What it started from. Only this function compares mitigation with the truth about a fault.
        rounds: All rounds, in order.
        seconds: Wall time of all sessions.
    """
    rows = [result.row for result in rounds]
    bounds = {"clients_refused": times_refused(rounds), "clients_capped": times_capped(rounds)}
    mitigation = None
    if settings.mitigate is not None:
        mitigation = summarize_mitigation(
            settings.mitigate.name,
            [row for result in rounds for row in result.mitigation],
            prepared.truth,
            everyone_is_known=prepared.client_job is None,
        )
        mitigation |= bounds
    return {
        "run": name,
        "seed": settings.seed,
        "rounds": len(rows),
        "final": rows[-1],
        "mean": {name: mean_measured([row[name] for row in rows]) for name in rows[-1] if name not in _NO_MEAN},
        "suspects": mean_suspects(row for result in rounds for row in result.suspects),
        "stand_outs": summarize_stand_outs(rounds),
        "mitigation": mitigation,
        "clients_dropped": sum(row["clients_dropped"] for row in rows),
        **bounds,
        "classes": list(prepared.data.label_names),
        "fault": None if prepared.fault is None else prepared.fault.describe(),
        "seconds": round(seconds, 3),
        "server_peak_memory_bytes": peak_memory(),
        **describe_environment(settings.device),
    }
