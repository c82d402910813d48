"""Whole runs that look for faulty clients: what they leave, and the same answer from what is stored."""

import json
import shutil

import pytest

from tests.helpers.runs import LIGHT_MODEL, run
from tests.helpers.tables import read_csv
from tracefl.questions.baselines import RULES
from tracefl.questions.retrace import retrace
from tracefl.records.tables import SUSPECT_COLUMNS

pytestmark = pytest.mark.slow

FLIP = (
    *LIGHT_MODEL,
    "fault=label_flip",
    "fault.num_clients=2",
    "fault.min_examples=1",
    "fault.from_round=2",
    "num_rounds=3",
    "client.epochs=2",
    "clients_per_round=5",
    "provenance=fault",
    "baselines=all",
    "provenance.max_inputs=8",
    "store=all",
)

FORETELLING = ("fldetector", "flanders")  # from two earlier rounds


@pytest.fixture(scope="module")
def flipped(tmp_path_factory):
    """A run of 5 clients, 2 of them faulty from round 2 on."""
    return run(tmp_path_factory.mktemp("flipped"), *FLIP)


def test_every_rule_has_a_row_in_every_round_with_inputs(flipped):
    table = read_csv(flipped / "suspects.csv")
    assert tuple(table[0]) == SUSPECT_COLUMNS
    first = [row for row in table if row["round"] == "1"]
    assert [(row["rule"], row["inputs"], row["faulty_clients"]) for row in first] == [("provenance", "0", "")]
    with_inputs = [row for row in table if int(row["inputs"])]
    assert with_inputs, "no round mispredicts: this test then tests nothing"
    for server_round in {row["round"] for row in with_inputs}:
        of_round = [row for row in with_inputs if row["round"] == server_round]
        assert [row["rule"] for row in of_round] == ["provenance", *RULES]
        for row in of_round:
            if server_round == "2" and row["rule"] in FORETELLING:
                assert row["note"].endswith("needs the weights of the 2 rounds before this one, and has those of 1")
                continue
            assert row["note"] == ""
            assert float(row["chance_accuracy"]) == 0.4
            assert 1.5 <= float(row["mean_rank"]) <= 4.5
            assert 0 <= float(row["localization_accuracy"]) <= 1
            assert len(row["ranking"].split()) == 5
            assert 0 < int(row["inputs"]) <= 8
    traced = read_csv(flipped / "provenance.csv")
    assert len(traced) == sum(int(row["inputs"]) for row in with_inputs if row["rule"] == "provenance")
    assert all(row["label"] != "0" and row["predicted"] == "0" and row["top_holder"] == "" for row in traced)
    faulty = set(json.loads((flipped / "fault.json").read_text())["clients"])
    assert all(set(row["expected_clients"].split()) == faulty for row in traced)
    assert all((row["traced_client"] in faulty) == (row["localized"] == "True") for row in traced)


def test_results_hold_the_means(flipped):
    suspects = json.loads((flipped / "results.json").read_text())["suspects"]
    table = [row for row in read_csv(flipped / "suspects.csv") if int(row["inputs"])]
    assert set(suspects) == {"provenance", *RULES}
    for rule, mean in suspects.items():
        of_rule = [float(row["localization_accuracy"]) for row in table if row["rule"] == rule and not row["note"]]
        assert mean["localization_accuracy"] == pytest.approx(sum(of_rule) / len(of_rule))
        assert mean["rounds"] == len(of_rule)
    mean = suspects["provenance"]
    assert mean["rounds_without_faulty"] == 1
    assert mean["rounds_without_inputs"] == 2 - mean["rounds"]


def test_a_stored_round_gives_the_same_suspects(flipped):
    recorded = read_csv(flipped / "suspects.csv")
    for n in (1, 2, 3):
        _, trace = retrace(flipped, n)
        again = [{k: "" if v is None else str(v) for k, v in row.items()} for row in trace.suspects]
        same = [row for row in recorded if row["round"] == str(n)]
        assert [{**row, "seconds": ""} for row in again] == [{**row, "seconds": ""} for row in same]


def test_a_stored_round_under_other_rules(flipped):
    last = [row for row in read_csv(flipped / "suspects.csv") if int(row["inputs"])][-1]["round"]
    _, trace = retrace(flipped, int(last), ["provenance=artifact", "provenance.max_inputs=8", "baselines.rules=[krum]"])
    assert [row["rule"] for row in trace.suspects] == ["provenance", "krum"]
    same = next(row for row in read_csv(flipped / "suspects.csv") if (row["round"], row["rule"]) == (last, "artifact"))
    assert trace.suspects[0]["ranking"] == same["ranking"]
    _, correct = retrace(flipped, int(last), ["provenance.inputs=correct", "baselines=none"])
    assert correct.suspects == ()
    assert all(t.label == t.predicted for t in correct.traced)


def test_a_resumed_run_has_the_same_suspects(flipped, tmp_path):
    folder = shutil.copytree(flipped, tmp_path / "default" / "run")
    before = [{**row, "seconds": ""} for row in read_csv(flipped / "suspects.csv")]
    (folder / "results.json").unlink()
    (folder / "suspects.csv").unlink()
    (folder / "rounds/0003/round.json").write_text("{}")  # damaged: the round is run again
    run(tmp_path, *FLIP, "resume=true")
    assert [{**row, "seconds": ""} for row in read_csv(folder / "suspects.csv")] == before


def test_a_resumed_run_whose_rounds_are_not_stored_says_so_and_begins_its_history_anew(flipped, tmp_path):
    folder = shutil.copytree(flipped, tmp_path / "default" / "run")
    (folder / "results.json").unlink()
    (folder / "rounds/0003/round.json").write_text("{}")
    shutil.rmtree(folder / "rounds/0001/weights")
    run(tmp_path, *FLIP, "resume=true")
    assert (
        "flforensics, fltracer, fldetector, flanders look back at 1 of the 2 rounds before round 3"
        in (folder / "run.log").read_text()
    )
    last = {row["rule"]: row for row in read_csv(folder / "suspects.csv") if row["round"] == "3"}
    assert all("and has those of 1" in last[rule]["note"] for rule in FORETELLING)
    assert last["fltracer"]["ranking"]
    assert not (folder / ".work").exists()
