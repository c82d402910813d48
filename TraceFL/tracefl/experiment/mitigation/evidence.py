"""What a mitigation decides on in a round: who stands out over its rounds, and what is gained without each."""

import time
from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor, nn

from tracefl.experiment.mitigation.decision import Mitigation
from tracefl.learning.examples import Examples
from tracefl.learning.training import evaluate
from tracefl.provenance import RoundRecord, StandOuts, weights_without
from tracefl.provenance.reading import check_average, read_round
from tracefl.provenance.removal import float64_average
from tracefl.questions.stand_outs import add_round, rows_of
from tracefl.questions.suspects import Row
from tracefl.questions.trace import RoundTrace, Tracer


@dataclass(frozen=True)
class Mitigated:
    """What was decided, and on what.

    Attributes:
        rows: Rows of mitigation.csv.
        stand_outs: Rows of stand_outs.csv.
        trace: The round's trace with the suspicions that were gone by, and the seconds that these took.
    """

    rows: tuple[Row, ...]
    stand_outs: tuple[Row, ...]
    trace: RoundTrace


def mitigate_round(
    mitigation: Mitigation,
    stand_outs: StandOuts,
    tracer: Tracer,
    trace: RoundTrace,
    model: nn.Module,
    record: RoundRecord,
    server: Examples,
    able: Collection[str],
) -> Mitigated:
    """Decide about the clients of a round, as a server must that knows of no fault.

    A downweighted client is judged by the average at its full weight. Otherwise it would no longer stand out because it
    weighs less, and then get its full weight back because it no longer stands out.

    Costs one average and one evaluation on the server's examples for each participant, and one of each for all.

    Args:
        mitigation: The rule.
        stand_outs: Those of the rounds before; this one is added.
        tracer: The run's tracer.
        trace: Its trace of the round.
        model: The architecture; it holds other weights afterwards.
        record: The round, as the run traced it.
        server: The server's examples.
        able: Clients that could take part if no mitigation had excluded them.
    """
    light = mitigation.participation.factors.keys() & record.clients.keys()
    if light:
        record = at_whole_weight(record, mitigation.participation.factors)
    if light or not tracer.adds_up:
        began = time.perf_counter()
        suspicions = tracer.class_suspicions(model, record, server)
        seconds = trace.provenance_seconds + time.perf_counter() - began
        trace = replace(trace, class_suspicions=suspicions, provenance_seconds=seconds)
    added = add_round(stand_outs, record.server_round, trace.class_suspicions)
    # Of a client that the round says nothing of, where it last stood.
    standing = rows_of(stand_outs, record.server_round, record.clients.keys())

    def accuracy(weights: dict[str, Tensor]) -> float:
        model.load_state_dict(weights)
        return evaluate(model, server, device=tracer.device).accuracy

    @cache
    def whole() -> tuple[dict[str, Tensor], float]:  # once for all of the round's clients
        check_average(read_round(None, record))
        return float64_average(record), accuracy(dict(record.global_weights))

    def gain_without(client_id: str) -> float:
        average, accuracy_of_all = whole()
        return accuracy(weights_without(record, client_id, average)) - accuracy_of_all

    rows = mitigation.add_round(record.server_round, tuple(record.clients), standing, gain_without, able)
    return Mitigated(rows, added, trace)


def at_whole_weight(record: RoundRecord, factors: dict[str, float]) -> RoundRecord:
    """Return a round as it would have been with every client at the weight of its examples.

    Args:
        record: The round.
        factors: Client id to the factor by which its weight was multiplied.
    """
    whole = {client: p / factors.get(client, 1.0) for client, p in record.client_weights.items()}
    total = sum(whole.values())
    even = replace(record, client_weights={client: p / total for client, p in whole.items()})
    average = {name: mean.to(record.average[name].dtype) for name, mean in float64_average(even).items()}
    average = {**record.average, **average}
    if record.before_noise is None:
        return replace(even, global_weights=average)
    noisy = {
        name: average[name] + (weights - record.before_noise[name]) if torch.is_floating_point(weights) else weights
        for name, weights in record.global_weights.items()
    }
    return replace(even, global_weights=noisy, before_noise=average)
