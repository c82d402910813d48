"""A round of two clients with random weights, and its result: what a record store keeps."""

import torch

from tests.helpers.tables import whole_row
from tracefl.provenance import RoundRecord, TracedInput
from tracefl.records.result import RoundResult
from tracefl.records.tables import SUSPECT_COLUMNS

RANKING = (("7", 0.75), ("3", 0.25))
TRACED = TracedInput(
    4, 1, 1, "7", ("3", "7"), True, 0.75, RANKING, 1.0, True, "7", 1.0, (("7", 0.4), ("3", -0.7)), ("7",)
)


def record(server_round=1, size=3):
    generator = torch.Generator().manual_seed(server_round)

    def state():
        return {"w": torch.randn(size, size, generator=generator), "n": torch.tensor(5)}

    return RoundRecord(server_round, {"3": state(), "7": state()}, {"3": 0.25, "7": 0.75}, state(), state())


SUSPECT = {"round": 1, "rule": "provenance", "inputs": 3, "auroc": 0.75, "note": ""}


def result(server_round=1):
    return RoundResult(
        whole_row(round=server_round, global_accuracy=0.5),
        (TRACED,),
        (dict.fromkeys(SUSPECT_COLUMNS) | SUSPECT | {"round": server_round},),
        {"3": 0.25, "7": 0.75},
        {"9": "a training loss of nan"},
        refused=("9",),
        capped={"7": "its 1000 examples count as 30"},
    )
