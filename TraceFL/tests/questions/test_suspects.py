"""The rows of suspects.csv, from a round whose numbers are known by hand."""

import pytest
import torch
from torch import nn

from tracefl.provenance import RoundRecord
from tracefl.questions import suspects
from tracefl.questions.baselines import Evidence, NotApplicableError
from tracefl.questions.suspects import compare_rules, mean_suspects, row_without_inputs
from tracefl.records.tables import SUSPECT_COLUMNS

FAULTY = torch.tensor([False, True, False])
# Client 8 is faulty. Input 1 names it; input 2 names 3; summed over both it is 8: (3, 8, 11) = (4, 5, 1).
CONTRIBUTIONS = torch.tensor([[1.0, 4.0, 0.0], [3.0, 1.0, 1.0]])


def evidence(server_round=2):
    state = {"weight": torch.ones(2, 2), "bias": torch.zeros(2)}
    clients = {"3": state, "8": state, "11": state}
    weights = {"3": 0.5, "8": 0.3, "11": 0.2}
    return Evidence(
        record=RoundRecord(server_round, clients, weights, state, state),
        model=nn.Linear(2, 2),
        inputs=torch.ones(2, 2),
        predicted=torch.tensor([0, 1]),
        num_faults=1,
        seed=0,
        device="cpu",
    )


def test_rows_by_hand(monkeypatch):
    def refuses(_):
        raise NotApplicableError("needs a convolution")

    monkeypatch.setitem(suspects.RULES, "refuses", refuses)
    first, second, third = compare_rules(CONTRIBUTIONS, 0.5, evidence(), FAULTY, ("most_examples", "refuses"))
    assert all(set(row) == set(SUSPECT_COLUMNS) for row in (first, second, third))
    assert (first["round"], first["rule"], first["inputs"], first["clients"]) == (2, "provenance", 2, 3)
    assert (first["faulty_clients"], first["ranking"]) == ("8", "8:5 3:4 11:1")
    assert (first["localization_accuracy"], first["chance_accuracy"]) == (0.5, pytest.approx(1 / 3))
    # Input 2: client 3 is above, 11 equal: rank 2.5; beats half of one of two honest clients: AUROC 0.25.
    assert (first["mean_rank"], first["auroc"]) == (1.75, 0.625)
    assert (first["whole_localization"], first["whole_rank"], first["whole_auroc"]) == (1.0, 1.0, 1.0)
    assert first["seconds"] == 0.5
    # A rule that looks at no input says the same of each: client 3 has most examples, 8 comes second.
    assert (second["localization_accuracy"], second["mean_rank"], second["whole_rank"]) == (0.0, 2.0, 2.0)
    assert (third["note"], third["localization_accuracy"], third["seconds"]) == ("needs a convolution", None, None)


def test_nobody_known_to_be_faulty_is_no_score():
    (row,) = compare_rules(CONTRIBUTIONS, 0.5, evidence(), None, ())
    assert row["ranking"] == "8:5 3:4 11:1"
    assert (row["localization_accuracy"], row["chance_accuracy"], row["faulty_clients"]) == (None, None, "")


def test_means_are_over_rounds_with_inputs(monkeypatch):
    def refuses(_):
        raise NotApplicableError("needs a convolution")

    monkeypatch.setitem(suspects.RULES, "refuses", refuses)
    right = torch.tensor([[0.0, 1.0, 0.0]])
    rows = [
        row_without_inputs(1, ("3", "8", "11"), FAULTY),
        *compare_rules(CONTRIBUTIONS, 0.5, evidence(2), FAULTY, ("refuses",)),
        *compare_rules(right.expand(2, 3), 0.1, evidence(3), FAULTY, ("refuses",)),
    ]
    means = mean_suspects(rows)
    assert means["provenance"]["localization_accuracy"] == 0.75
    assert means["provenance"]["seconds_per_input"] == pytest.approx(0.6 / 4)
    assert (means["provenance"]["rounds"], means["provenance"]["rounds_without_inputs"]) == (2, 1)
    assert (means["refuses"]["rounds"], means["refuses"]["localization_accuracy"]) == (0, None)
    assert means["refuses"]["note"] == "needs a convolution"
    assert mean_suspects([]) == {}


def test_a_round_without_inputs_is_neither_right_nor_wrong():
    row = row_without_inputs(1, ("3", "8"), torch.tensor([True, False]))
    assert (row["inputs"], row["localization_accuracy"], row["faulty_clients"]) == (0, None, "3")
    mean = mean_suspects([row])["provenance"]
    assert (mean["rounds"], mean["rounds_without_inputs"], mean["localization_accuracy"]) == (0, 1, None)
