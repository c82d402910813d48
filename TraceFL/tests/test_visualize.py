"""The command that makes the paper's figures and tables, on made folders."""

import json
import runpy
from pathlib import Path

import pytest

from tests.helpers.commands import call_main
from tests.helpers.made_exhibits import make_exhibit_run
from tests.helpers.made_runs import FLIP, found, make_faulty_run, without_inputs
from tests.helpers.tables import read_csv
from tracefl.paper.exhibits import EXHIBITS
from tracefl.records.checksums import seal
from tracefl.visualize import main

ROUNDS = [(0.5, 0.9, 0.3)] * 2
FIGURE2 = ("experiment=figure2", "model=resnet18", "dataset=mnist")
TABLE3 = ("experiment=table3",)


@pytest.fixture
def visualize(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: call_main(monkeypatch, capsys, main, "visualize", *arguments)


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def test_an_experiment_of_the_app(visualize, tmp_path):
    make_exhibit_run(tmp_path / "results", ROUNDS, "model=resnet18", exp_key="exp_1", seed=1)
    make_exhibit_run(tmp_path / "results", [(0.5, 0.7, 0.3)] * 2, "model=resnet18", exp_key="exp_1", seed=2)
    status, out, err = visualize("exp=exp_1", "figure=2")
    assert (status, err) == (0, "tracefl: reading results\n")
    made = ["figure2.csv", "figure2.pdf", "figure2.png"]
    assert files(tmp_path / "results" / "figures") == made
    assert "figure 2: 2 runs; " in out
    assert "no run for 36 of the paper's 36:" in out
    assert "BERT Yahoo Answers, alpha 0.1, 0.2, 0.3" in out
    drawn = [row for row in read_csv(tmp_path / "results" / "figures" / "figure2.csv") if row["seeds"] == "2"]
    assert [(row["round"], float(row["localization_accuracy"])) for row in drawn] == [
        ("1", pytest.approx(0.8)),
        ("2", pytest.approx(0.8)),
    ]
    (tmp_path / "results" / "figures" / "figure2.png").unlink()
    assert visualize("exp=exp_1")[0] == 0  # an experiment's own figure needs no number
    assert files(tmp_path / "results" / "figures") == made


def test_all_of_a_job_script_s_runs(visualize, tmp_path):
    logs = tmp_path / "logs"
    for alpha in (0.1, 0.3):
        make_exhibit_run(logs, ROUNDS, *FIGURE2, dirichlet_alpha=alpha)
    make_exhibit_run(logs, ROUNDS, *TABLE3, num_clients=200)
    make_faulty_run(logs, [found(1, "provenance", 0.9), found(1, "feddebug", 0.1)], "exp_key=table1")
    make_exhibit_run(logs, ROUNDS, "model=resnet18", exp_key="own")  # of no figure
    status, out, err = visualize("--all", logs)
    assert (status, err) == (0, "")
    pages = [f"figure2-alpha{alpha}.{kind}" for alpha in (0.1, 0.3) for kind in ("pdf", "png")]
    seconds = [f"figure6.{kind}" for kind in ("csv", "pdf", "png")]
    tables = [f"table{number}.{kind}" for number in (1, 3) for kind in ("csv", "md", "tex")]
    assert files(logs / "figures") == [*pages, "figure2.csv", *seconds, *tables]
    for name in ("figure 3", "figure 4", "figure 5", "table 2"):
        assert f"{name}: {logs} holds no complete run of" in out
    rows = read_csv(logs / "figures" / "figure6.csv")
    timed = {row["rule"]: row["seconds_per_input"] for row in rows if row["rule"]}
    assert timed == {"provenance": "0.1", "feddebug": "0.1"}  # a second for ten inputs
    assert "no run: GPT DBpedia, alpha 0.3, 0.7, 1" in [row["model_and_data"] for row in rows if not row["rule"]]


def test_runs_of_any_experiment_by_its_name(visualize, tmp_path):
    make_exhibit_run(tmp_path / "logs", ROUNDS, *TABLE3, exp_key="mine", num_clients=200)
    status, _, err = visualize("figure=3")
    assert (status, "of figure3 or exp_2" in err) == (2, True)
    assert visualize("logs", "exp=mine", "figure=3", "table=3", "out=here")[0] == 0
    assert {"figure3.png", "table3.tex"} < set(files(tmp_path / "here"))


def test_json_is_all_that_is_printed(visualize, tmp_path):
    make_exhibit_run(tmp_path / "logs", ROUNDS, *TABLE3, num_clients=200)
    make_exhibit_run(tmp_path / "logs", ROUNDS, *TABLE3, num_clients=400, state="stopped")
    status, out, err = visualize("table=3", "--json")
    answer = json.loads(out)
    (made,) = answer["exhibits"]
    assert (status, answer["folder"], made["name"], made["runs"]) == (0, "logs", "table3", 1)
    assert sorted(made["files"]) == [
        str(path.relative_to(tmp_path)) for path in sorted((tmp_path / "logs/figures").iterdir())
    ]
    assert made["missing"]
    assert [line.startswith("stopped: table3/") for line in answer["left_out"]] == [True]
    assert "table 3: 1 run" in err


def test_what_is_not_complete_is_named_and_not_drawn(visualize, tmp_path):
    logs = tmp_path / "logs"
    make_exhibit_run(logs, ROUNDS, *FIGURE2, seed=1)
    stopped = make_exhibit_run(logs, [(0.5, 0.0, 0.3)], *FIGURE2, seed=2, state="stopped")
    damaged = {}
    for seed, text in ((3, "{"), (4, "[]"), (5, "")):
        damaged[text] = make_exhibit_run(logs, [(0.5, 0.1, 0.3)] * 2, *FIGURE2, seed=seed)
        (damaged[text] / "results.json").write_text(text)
        seal(damaged[text])
    faulty = make_exhibit_run(logs, ROUNDS, *FIGURE2, seed=6, fault=FLIP)
    status, out, _ = visualize("figure=2", logs)
    assert status == 0
    left_out = [line for line in out.splitlines() if line.startswith("left out")]
    assert len(left_out) == 5
    assert any(f"stopped: figure2/{stopped.name}, 1 of 1 rounds" in line for line in left_out)
    for text, words in (("{", "it is no JSON"), ("[]", "it should be an object"), ("", "it is no JSON")):
        assert any(damaged[text].name in line and words in line for line in left_out)
    assert any(faulty.name in line and "has faulty clients" in line for line in left_out)
    drawn = [row for row in read_csv(logs / "figures" / "figure2.csv") if row["round"]]
    assert {(row["seeds"], row["localization_accuracy"]) for row in drawn} == {("1", "0.9")}


def make_nothing(folder):
    folder.mkdir()


def make_other_files(folder):
    (folder / "sub").mkdir(parents=True)
    (folder / "notes.txt").write_text("no run")


def make_damaged(folder):
    run = make_exhibit_run(folder, ROUNDS, *FIGURE2)
    (run / "results.json").write_text("not json")


def make_unfinished(folder):
    make_exhibit_run(folder, ROUNDS, *FIGURE2, state="stopped")


def make_without_mispredictions(folder):
    make_faulty_run(folder, [without_inputs(1)], "exp_key=table1")


@pytest.mark.parametrize(
    ("make", "arguments", "words"),
    [
        (make_nothing, ["--all"], "holds no run"),
        (make_other_files, ["figure=2"], "holds no run"),
        (make_damaged, ["figure=2"], "holds only damaged runs"),
        (make_unfinished, ["figure=2"], "figure 2: {tmp}/runs holds no complete run of figure2 or exp_1"),
        (make_unfinished, ["--all"], "holds no complete run of any figure"),
        (make_without_mispredictions, ["figure=6"], "holds no complete run of table1"),
        (make_unfinished, ["figure=7"], "figure must be among 2, 3, 4, 5, 6, got '7'"),
        (make_unfinished, ["figure=two"], "figure must be among 2, 3, 4, 5, 6, got 'two'"),
        (make_unfinished, ["table=4"], "table must be among 1, 2, 3, got '4'"),
        (make_unfinished, ["figur=2"], "unknown argument 'figur=2'; did you mean 'figure'?"),
        (make_unfinished, ["exp=exp_1"], "exp='{tmp}/runs/exp_1' is not a folder"),
        (make_unfinished, ["exp=mine"], "nothing to make is named"),
        (make_unfinished, ["--all", "figure=2"], "--all makes every figure"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(visualize, tmp_path, make, arguments, words):
    make(tmp_path / "runs")
    before = sorted(tmp_path.rglob("*"))
    status, out, err = visualize(*arguments, tmp_path / "runs")
    assert status == 2
    assert len(err.strip().splitlines()) == 1
    assert err.startswith("tracefl: ")
    assert words.format(tmp=tmp_path) in err
    assert all(line.startswith("left out") for line in out.splitlines())
    assert sorted(tmp_path.rglob("*")) == before


def test_the_script_is_the_command(monkeypatch, capsys):
    script = Path(__file__).parents[1] / "visualize_results.py"
    status, out, _ = call_main(
        monkeypatch, capsys, lambda: runpy.run_path(str(script), run_name="__main__"), str(script), "--help"
    )
    assert status == 0
    for exhibit in EXHIBITS.values():
        assert str(exhibit.number) in out
