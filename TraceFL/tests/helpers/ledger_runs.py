"""Rounds of a made run: random participants, predictions and contributions, no training."""

import random

from tests.helpers.tables import whole_row
from tracefl.provenance import TracedInput
from tracefl.records.result import RoundResult


def made_results(rounds=4, num_clients=6, num_classes=3, untraced=(3,), seed=0):
    """Return the results of rounds in which three clients took part; client 5 never does."""
    draw = random.Random(seed)
    results = []
    for number in range(1, rounds + 1):
        clients = sorted(draw.sample(range(num_clients - 1), 3))
        traced = []
        for index in range(0 if number in untraced else 9):
            parts = sorted(((str(k), draw.gauss(0, 1)) for k in clients), key=lambda part: -part[1])
            label, predicted = draw.randrange(num_classes), draw.randrange(num_classes)
            ranking = tuple((client, 1 / 3) for client, _ in parts)
            unknown = (None, None, None, None)
            traced.append(
                TracedInput(index, label, predicted, parts[0][0], (), None, 1 / 3, ranking, *unknown, tuple(parts))
            )
        row = whole_row(round=number, global_accuracy=0.5)
        results.append(RoundResult(row, tuple(traced), (), {str(k): 1 / 3 for k in clients}, {}))
    return results
