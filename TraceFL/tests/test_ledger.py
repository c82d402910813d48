"""The account of a run from its folder: files, terminal, JSON, and what is no account."""

import json
import shutil
import sys
from dataclasses import asdict, replace

import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from tests.helpers.commands import call_main, flat
from tests.helpers.ledger_runs import made_results
from tests.helpers.made_runs import FLIP
from tests.helpers.stored_runs import make_stored_run
from tests.helpers.tables import read_csv
from tracefl.learning.datasets import load_examples, save_examples
from tracefl.learning.examples import PIXELS
from tracefl.learning.faults import Fault
from tracefl.ledger import main
from tracefl.provenance import RoundRecord
from tracefl.questions.ledger import ContributionLedger, read_ledger
from tracefl.records.checksums import seal
from tracefl.records.store import RoundStore
from tracefl.report.ledger import LEDGER_COLUMNS

RESULTS = made_results(num_classes=4)


def commit(run, results):
    weights = {"w": torch.zeros(1)}
    for result in results:
        clients = dict.fromkeys(result.client_weights, weights)
        record = RoundRecord(result.server_round, clients, result.client_weights, weights, weights)
        RoundStore(run / "rounds").commit(result, record)
    seal(run)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run of four made rounds, of which the third is not traced; six clients, two of them faulty."""
    run = make_stored_run(tmp_path_factory.mktemp("made"), rounds=())
    labels = json.loads((run / "label_counts.json").read_text())
    (run / "label_counts.json").write_text(json.dumps({**labels, "label_counts": [[1, 1, 1, 1]] * 6}))
    server = load_examples(run / "server.safetensors")
    nine = torch.arange(9) % 4
    save_examples(
        run / "server.safetensors",
        replace(server, features={PIXELS: server.features[PIXELS][nine]}, labels=nine, rows=torch.arange(9)),
    )
    config = OmegaConf.load(run / "config.yaml")
    config.fault = FLIP
    OmegaConf.save(config, run / "config.yaml")
    fault = Fault("label_flip", ("1", "5"), from_round=1, flips={1: 0}, share=1.0)
    (run / "fault.json").write_text(json.dumps(asdict(fault) | {"changes": []}))
    commit(run, RESULTS)
    return run


@pytest.fixture
def run(made, tmp_path):
    return shutil.copytree(made, tmp_path / "run")


def call(monkeypatch, capsys, *arguments):
    return call_main(monkeypatch, capsys, main, "ledger", *arguments)


def test_the_table_and_the_files(monkeypatch, capsys, run):
    status, out, err = call(monkeypatch, capsys, run)
    assert (status, err) == (0, "")
    ledger = ContributionLedger(RESULTS)
    right, wrong = ledger.correct_predictions, ledger.wrong_predictions
    assert f"4 rounds, 3 traced; contributions in logits to {right} correct and {wrong} wrong predictions" in flat(out)
    assert "* faulty: 1 5" in out
    never = [str(k) for k in range(6) if ledger.usefulness(str(k)) is None]
    assert "5" in never
    assert f"without a traced prediction: {len(never)} clients, {' '.join(never)}" in flat(out)
    lines = [line.split() for line in out.splitlines() if len(line.split()) == 8 and line.split()[1].isdigit()]
    best = sorted(set(map(str, range(6))) - set(never), key=lambda k: -ledger.usefulness(k))
    assert [line[0].lstrip("*") for line in lines] == best
    assert [float(line[-2]) for line in lines] == [pytest.approx(ledger.usefulness(k), abs=5e-4) for k in best]
    whole = {row["client"]: row for row in read_csv(run / "ledger.csv") if row["class"] == "all"}
    ends = [f"[{float(whole[k]['usefulness_low']):+.2f},{float(whole[k]['usefulness_high']):+.2f}]?" for k in best]
    assert [line[-1] for line in lines] == ends
    assert "?: fewer than 10 inputs, so nothing is settled, and such clients come last" in flat(out)
    # No line is wider, unless it is a path, which cannot be broken.
    assert max(len(line) for line in out.splitlines() if str(run) not in line) <= 80
    with Image.open(run / "ledger.png") as picture:
        assert picture.width > 600

    rows = read_csv(run / "ledger.csv")
    assert tuple(rows[0]) == LEDGER_COLUMNS
    whole = {row["client"]: row for row in rows if row["class"] == "all"}
    assert list(whole) == [str(k) for k in range(6)]
    for k, row in whole.items():
        assert row["faulty"] == str(k in ("1", "5"))
        assert row["rounds"] == " ".join(map(str, ledger.rounds_of.get(k, [])))
        assert int(row["rounds_traced"]) == len({1, 2, 4} & set(ledger.rounds_of.get(k, [])))
        for name, correct in (("correct", True), ("wrong", False)):
            tally = ledger.tally(k, correct)
            assert int(row[f"{name}_predictions"]) == tally.predictions
            assert float(row[f"{name}_total"]) == tally.total
            assert row[f"{name}_mean"] == ("" if tally.mean is None else str(tally.mean))
    assert (whole["5"]["usefulness"], whole["5"]["rounds"], whole["5"]["correct_predictions"]) == ("", "", "0")
    classes = [row for row in rows if row["class"] != "all"]
    assert all(row["class_name"] == ["ant", "bee", "Cat", "dog"][int(row["class"])] for row in classes)
    for k in ledger.rounds_of:
        for name in ("correct_predictions", "wrong_predictions"):
            assert sum(int(row[name]) for row in classes if row["client"] == k) == int(whole[k][name])


def test_json_holds_the_same(monkeypatch, capsys, run, tmp_path):
    files = (f"csv={tmp_path / 'a.csv'}", f"png={tmp_path / 'a.pdf'}")
    status, out, err = call(monkeypatch, capsys, run, "--json", *files)
    assert (status, err) == (0, "")
    found = json.loads(out)
    assert (found["rounds"], found["rounds_traced"], found["unit"]) == (4, [1, 2, 4], "logits")
    assert found["method"]["weighting"] == "leave_one_out"
    rows = read_csv(tmp_path / "a.csv")
    for client in found["clients"]:
        own = [row for row in rows if row["client"] == client["client"]]
        assert own[0]["usefulness"] == ("" if client["usefulness"] is None else str(client["usefulness"]))
        assert own[0]["rounds"].split() == [str(n) for n in client["rounds"]]
        assert own[0]["inputs"] == str(client["inputs"])
        for kind in ("correct", "wrong"):
            for end in ("total_low", "mean_high"):
                assert own[0][f"{kind}_{end}"] == ("" if client[kind][end] is None else str(client[kind][end]))
            assert float(own[0][f"{kind}_total"]) == client[kind]["total"]
            by_class = {row["class"]: float(row[f"{kind}_total"]) for row in own[1:] if row[f"{kind}_mean"]}
            assert by_class == {str(c["class"]): c["total"] for c in client[kind]["by_class"]}
    assert (tmp_path / "a.pdf").exists()
    assert not (run / "ledger.csv").exists()


def test_of_many_clients_the_two_ends_are_shown(monkeypatch, capsys, run):
    shutil.rmtree(run / "rounds")
    labels = json.loads((run / "label_counts.json").read_text())
    (run / "label_counts.json").write_text(json.dumps({**labels, "label_counts": [[1, 1, 1, 1]] * 32}))
    commit(run, made_results(rounds=40, num_clients=32, num_classes=4, untraced=()))
    status, out, _ = call(monkeypatch, capsys, run)
    assert status == 0
    run_ledger = read_ledger(run)
    lines = [line.split() for line in out.splitlines() if len(line.split()) == 8 and line.split()[1].isdigit()]
    assert [line[0].lstrip("*") for line in lines] == [*run_ledger.ranked[:10], *run_ledger.ranked[-10:]]
    assert f"{len(run_ledger.ranked) - 20} more clients between the two parts" in flat(out)


def test_a_class_may_be_called_anything(monkeypatch, capsys, run):
    counts = json.loads((run / "label_counts.json").read_text())
    counts["label_names"][0] = r"$\frac$"  # which matplotlib would take for a formula
    (run / "label_counts.json").write_text(json.dumps(counts))
    seal(run)
    status, _, err = call(monkeypatch, capsys, run)
    assert (status, err) == (0, "")


def test_a_kind_of_prediction_that_was_not_traced_is_said(monkeypatch, capsys, run):
    shutil.rmtree(run / "rounds")
    made = made_results(rounds=1, num_classes=4)[0]
    right = tuple(t for t in made.traced if t.label == t.predicted)
    commit(run, [type(made)(made.row, right, (), made.client_weights, {})])
    status, out, _ = call(monkeypatch, capsys, run)
    assert status == 0
    assert "no wrong prediction was traced, and it counts as 0; provenance.inputs=all traces both kinds" in flat(out)


def damage(run, number=2):
    path = run / "rounds" / f"{number:04d}" / "round.json"
    path.write_text(path.read_text().replace("0.5", "0.6", 1))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda run: (run / "config.yaml").unlink(), "is no run's folder: it has no config.yaml"),
        (lambda run: (run / "config.yaml").write_text("a: ["), "config.yaml is damaged"),
        (lambda run: (run / "config.yaml").write_bytes(b"\xff\xfe"), "config.yaml is damaged"),
        (
            lambda run: ((run / "config.yaml").write_text("client_resources: {}\n"), seal(run)),
            "config.yaml is damaged or of another version of tracefl: exp_key is missing",
        ),
        (lambda run: (run / "SHA256SUMS").unlink(), "has no SHA256SUMS: it is no run's folder"),
        *(
            (lambda run, text=text: (run / "label_counts.json").write_bytes(text), "label_counts.json is damaged")
            for text in (b"", b"\xff", b"[1,2]", b"{}", b'{"label_names": ["a"], "label_counts": [[1, 2]]}')
        ),
        (damage, "round.json is damaged: its checksum is not the one in SHA256SUMS"),
        (lambda run: (run / "rounds" / "0002" / "round.json").write_text("{"), "round.json is damaged"),
        (lambda run: shutil.rmtree(run / "rounds" / "0002"), "round 2 is missing"),
        (lambda run: shutil.rmtree(run / "rounds"), "round 1 is missing"),
        (lambda run: (shutil.rmtree(run / "rounds"), seal(run)), "has no traced prediction in its 0 rounds"),
        (lambda run: (run / "label_counts.json").unlink(), "label_counts.json is missing"),
        (lambda run: (run / "fault.json").unlink(), "fault.json is missing"),
        (lambda run: ((run / "fault.json").unlink(), seal(run)), "it has no fault.json"),
    ],
)
def test_a_folder_without_an_account(monkeypatch, capsys, run, spoil, words):
    spoil(run)
    status, out, err = call(monkeypatch, capsys, run)
    assert (status, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert words in err
    assert not {"ledger.csv", "ledger.png"} & {path.name for path in run.iterdir()}


def test_a_run_without_provenance(monkeypatch, capsys, run):
    shutil.rmtree(run / "rounds")
    commit(run, [type(r)(r.row, (), (), r.client_weights, {}) for r in RESULTS])
    status, _, err = call(monkeypatch, capsys, run)
    assert status == 2
    assert "has no traced prediction in its 4 rounds, so nothing to account for; run with provenance=removal" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], "begins with 'nowhere'"),
        (["--json"], "no run is given"),
        ([".", "round=3"], "unknown argument 'round=3'"),
        ([".", "csv="], "'csv=' has no value"),
        ([".", "png=a.txt"], "png='a.txt': give a file that ends in .png"),
        ([".", "png=no/a.png"], "png='no/a.png': give a file in a folder that exists"),
        (["."], "is no run's folder: it has no config.yaml"),
    ],
)
def test_bad_input(monkeypatch, capsys, tmp_path, arguments, words):
    monkeypatch.chdir(tmp_path)
    status, out, err = call(monkeypatch, capsys, *arguments)
    assert (status, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert words in err
    assert list(tmp_path.iterdir()) == []


def test_help(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["ledger", "--help"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 0
    assert "usage: tracefl ledger" in capsys.readouterr().out
