"""A stored round without each of its clients, on the command line."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.helpers.commands import ask_main, call_main, flat
from tests.helpers.made_runs import give_fault
from tests.helpers.stored_runs import P, make_stored_run
from tests.helpers.tables import read_csv, whole_row
from tracefl.common.seeds import derive_seed
from tracefl.counterfactual import main
from tracefl.learning.faults import Fault, Trigger
from tracefl.learning.models import ModelSpec, build_model
from tracefl.provenance import RoundRecord, exact_shapley, sampled_shapley
from tracefl.questions.retrace import retrace
from tracefl.records.checksums import seal
from tracefl.records.result import RoundResult
from tracefl.records.run import StoredRun
from tracefl.records.store import RoundStore
from tracefl.report.counterfactual import COUNTERFACTUAL_COLUMNS


@pytest.fixture
def run(text_run, tmp_path):
    """A copy, to be changed."""
    return shutil.copytree(text_run, tmp_path / "run")


@pytest.fixture
def ask(monkeypatch, capfd):
    """Call the command; returns what is printed, or the error's line."""
    return partial(ask_main, monkeypatch, capfd, main, "counterfactual")


def commit(run, record):
    result = RoundResult(whole_row(round=record.server_round), (), (), dict(record.client_weights), {})
    RoundStore(run / "rounds", keep="all").commit(result, record)
    seal(run)


def centered_and_probability(run, weights, inputs, classes):
    model = build_model(ModelSpec.from_json((run / "model.json").read_text())).eval()
    model.load_state_dict(weights)
    with torch.no_grad():
        logits = model(inputs).double()
    pick = torch.arange(len(classes)), classes
    return logits, (logits - logits.mean(dim=1, keepdim=True))[pick], logits.softmax(dim=1)[pick]


@pytest.mark.parametrize("number", [1, None])
def test_the_csv_against_models_that_are_averaged_from_the_files(image_run, tmp_path, ask, number):
    ask(image_run, "inputs=all", f"csv={tmp_path / 'a.csv'}", *([] if number is None else [f"round={number}"]))
    rows = read_csv(tmp_path / "a.csv")
    assert tuple(rows[0]) == COUNTERFACTUAL_COLUMNS
    assert [(row["input_index"], row["client"]) for row in rows] == [(str(i), k) for i in range(4) for k in P]
    folder = image_run / "rounds" / f"{number or 2:04d}"
    clients = {k: load_file(folder / "weights" / f"client-{k}.safetensors") for k in P}
    inputs, labels = StoredRun(image_run).server.batch(torch.arange(4))
    whole = load_file(folder / "global.safetensors")
    classes = centered_and_probability(image_run, whole, inputs, labels)[0].argmax(dim=1)
    _, centered, probability = centered_and_probability(image_run, whole, inputs, classes)
    for left in P:
        others = {
            name: sum(P[k] / (1 - P[left]) * clients[k][name] for k in P if k != left) if w.is_floating_point() else w
            for name, w in whole.items()
        }
        logits, without, p_without = centered_and_probability(image_run, others, inputs, classes)
        for i, row in enumerate(row for row in rows if row["client"] == left):
            assert (int(row["round"]), int(row["label"])) == (number or 2, int(labels[i]))
            assert (int(row["predicted"]), int(row["predicted_without"])) == (int(classes[i]), int(logits[i].argmax()))
            assert (float(row["weight"]), row["faulty"]) == (P[left], "")
            close = {"rel": 1e-3, "abs": 1e-4}
            assert float(row["centered_logit"]) == pytest.approx(float(centered[i]), **close)
            assert float(row["centered_logit_without"]) == pytest.approx(float(without[i]), **close)
            assert float(row["effect"]) == pytest.approx(float(centered[i] - without[i]), **close)
            assert float(row["probability"]) == pytest.approx(float(probability[i]), **close)
            assert float(row["probability_without"]) == pytest.approx(float(p_without[i]), **close)
            assert (row["shapley"], row["shapley_standard_error"]) == ("", "")


def test_json_and_csv_say_the_same(image_run, tmp_path, ask):
    found = json.loads(ask(image_run, "--json", "inputs=3,1", "shapley=true", f"csv={tmp_path / 'a.csv'}"))
    assert (found["round"], found["asked"]) == (2, "3,1")
    assert found["chance_carried"] == (2 - found["nobody"]) / 3
    assert found["shapley"]["method"] == "exact"
    rows = iter(read_csv(tmp_path / "a.csv"))
    for one in found["inputs"]:
        assert sum(client["shapley"] for client in one["clients"]) == pytest.approx(one["shapley_total"])
        for client in one["clients"]:
            row = next(rows)
            for name, value in {**one, **client}.items():
                if name in row:
                    assert row[name] == ("" if value is None else str(value)), name
    assert [one["input_index"] for one in found["inputs"]] == [3, 1]
    assert next(rows, None) is None
    for client in found["clients"]:  # the table is the rows' means and counts
        own = [k for one in found["inputs"] for k in one["clients"] if k["client"] == client["client"]]
        assert client["effect"] == pytest.approx(sum(k["effect"] for k in own) / 2)
        assert client["own_effect"] == pytest.approx(client["effect"] - found["common"]["effect"])
        assert client["own_effect"] == pytest.approx(sum(k["effect"] - k["common_effect"] for k in own) / 2)
        for name in ("effect", "own_effect", "shapley"):  # of two inputs, half of the draws hold both
            assert client[f"{name}_low"] == pytest.approx(min(k[name] for k in own))
            assert client[f"{name}_high"] == pytest.approx(max(k[name] for k in own))
        assert client["shapley"] == pytest.approx(sum(k["shapley"] for k in own) / 2)
        changed = [k["predicted_without"] != one["predicted"] for one, k in zip(found["inputs"], own, strict=True)]
        assert (client["changed"], client["measured"]) == (sum(changed), 2)
        right = [k["predicted_without"] == one["label"] for one, k in zip(found["inputs"], own, strict=True)]
        assert client["right"] == sum(right)
        firsts = [max(one["clients"], key=lambda k: k["effect"]) for one in found["inputs"]]
        carries = [first["client"] for first in firsts if first["effect"] > 1e-5]
        assert (client["carried"], len(carries)) == (carries.count(client["client"]), 2 - found["nobody"])
    effects = [client["effect"] for client in found["clients"]]
    assert effects == sorted(effects, reverse=True)


def test_shapley_values_are_the_libraries(image_run, ask):
    model, record = StoredRun(image_run).round(1)
    inputs, _ = StoredRun(image_run).server.batch(torch.arange(4))
    for arguments, expected in (
        (["shapley=exact"], lambda classes: exact_shapley(model, record, inputs, classes)),
        (
            ["shapley=sampled", "permutations=6"],
            lambda classes: sampled_shapley(model, record, inputs, classes, 6, derive_seed(42, "shapley", 1)),
        ),
    ):
        found = json.loads(ask(image_run, "round=1", "inputs=all", "--json", *arguments))
        values = expected(torch.tensor([one["predicted"] for one in found["inputs"]]))
        assert found["shapley"]["permutations"] == values.permutations
        for i, one in enumerate(found["inputs"]):
            assert [k["shapley"] for k in one["clients"]] == pytest.approx(values.values[i].tolist())
            errors = values.standard_errors[i].tolist()
            assert [k["shapley_standard_error"] for k in one["clients"]] == pytest.approx(errors)


def test_the_table(image_run, ask):
    found = json.loads(ask(image_run, "inputs=all", "--json", "shapley=sampled", "permutations=4"))
    shown = ask(image_run, "inputs=all", "shapley=sampled", "permutations=4")
    lines = [line.split() for line in shown.splitlines() if line.split()[:1] and line.split()[0] in P]
    assert len(lines) == 2 * len(P)
    for line, client in zip(lines[: len(P)], found["clients"], strict=True):
        assert line == [
            client["client"],
            f"{100 * client['weight']:.1f}%",
            f"{client['effect']:+.3f}",
            f"{client['own_effect']:+.3f}",
            f"[{client['own_effect_low']:+.2f},{client['own_effect_high']:+.2f}]?",  # of four inputs
            str(client["carried"]),
            str(client["changed"]),
            str(client["right"]),
        ]
    for line, client in zip(lines[len(P) :], found["clients"], strict=True):
        assert line == [
            client["client"],
            f"{client['shapley']:+.3f}",
            f"[{client['shapley_low']:+.2f},{client['shapley_high']:+.2f}]?",
            f"{client['shapley_standard_error']:.3f}",
        ]
    assert "?: fewer than 10 inputs, so the order of the clients is not settled" in flat(shown)
    assert f"all removals have {found['common']['effect']:+.3f} in common" in flat(shown)
    assert "round 2: 4 inputs (" in flat(shown)
    assert "each of 3 clients removed from the average" in flat(shown)
    assert f"(by chance {found['chance_carried']:.1f})" in flat(shown)
    assert "estimated from 4 orders" in flat(shown)
    assert "faulty" not in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_the_inputs_that_the_run_traces(image_run, ask):
    overrides = ["provenance.inputs=all", "provenance.max_inputs=2"]
    expected = [t.input_index for t in retrace(image_run, 1, overrides)[1].traced]
    found = json.loads(ask(image_run, "round=1", "--json", *overrides))
    assert [one["input_index"] for one in found["inputs"]] == expected
    for which, right in (("correct", True), ("mispredicted", False)):
        every = json.loads(ask(image_run, "round=1", "inputs=all", "--json"))["inputs"]
        expected = [one["input_index"] for one in every if (one["label"] == one["predicted"]) == right]
        if expected:
            found = json.loads(ask(image_run, "round=1", f"inputs={which}", "--json"))
            assert [one["input_index"] for one in found["inputs"]] == expected
        else:
            assert f"has no input for inputs={which}; give inputs=all" in ask(image_run, "round=1", f"inputs={which}")


def test_faulty_clients_are_marked(run, ask):
    give_fault(run, Fault("label_flip", ("2",), from_round=2, flips={1: 0}, share=1.0))
    shown = ask(run, "inputs=all")
    assert "* faulty: 2" in shown
    assert [line.split()[0] for line in shown.splitlines() if "%" in line and "*" in line.split()[0]] == ["*2"]
    assert "no client is faulty in this round" in ask(run, "inputs=all", "round=1")
    assert "traces no input, for no faulty client takes part in it; give inputs=mispredicted" in ask(run, "round=1")
    found = json.loads(ask(run, "inputs=0", "--json"))
    assert {client["client"]: client["faulty"] for client in found["clients"]} == {"0": False, "2": True, "3": False}


def test_a_trigger_is_put_on_the_traced_inputs_alone(run, ask):
    def logits(inputs):
        asked = json.loads(ask(run, f"inputs={inputs}", "--json"))["inputs"]
        return {entry["input_index"]: entry["centered_logit"] for entry in asked}

    clean = logits("all")
    give_fault(run, Fault("backdoor", ("2",), from_round=1, target=3, trigger=Trigger(token=7), share=0.5))
    assert logits("all") == clean
    found = logits("traced")
    assert found
    assert all(clean[index] != logit for index, logit in found.items())


def test_noise_stays_unless_the_average_before_it_is_asked(run, ask):
    record = replace(RoundStore(run / "rounds").read(1), server_round=3)
    torch.manual_seed(0)
    deployed = {n: w + 0.01 * w.abs() if w.is_floating_point() else w for n, w in record.global_weights.items()}
    commit(run, replace(record, global_weights=deployed, before_noise=record.global_weights))
    plain = json.loads(ask(run, "round=1", "inputs=all", "--json"))["inputs"]
    before = json.loads(ask(run, "round=3", "inputs=all", "--json", "privacy.trace=before_noise"))["inputs"]
    assert before == plain
    noisy = json.loads(ask(run, "round=3", "inputs=all", "--json"))["inputs"]
    assert all(a["centered_logit"] != b["centered_logit"] for a, b in zip(noisy, plain, strict=True))


def test_a_client_without_which_there_are_no_logits(tmp_path, ask):
    """The others' running variance is negative."""
    run = make_stored_run(tmp_path, "image", rounds=(1,))
    record = replace(RoundStore(run / "rounds").read(1), server_round=2)
    clients = {k: dict(weights) for k, weights in record.clients.items()}
    name = next(name for name in clients["0"] if name.endswith("running_var"))
    clients["0"][name] = torch.full_like(clients["0"][name], 9.0)
    for k in ("2", "3"):
        clients[k][name] = torch.full_like(clients[k][name], -3.0)
    average = {**record.global_weights, name: torch.full_like(clients["0"][name], 3.0)}
    commit(run, replace(record, clients=clients, global_weights=average))
    shown = ask(run, "inputs=all", f"csv={tmp_path / 'a.csv'}")
    assert "without client 0 the model gives no finite logits for 4 of 4 inputs" in flat(shown)
    (line,) = (line.split() for line in shown.splitlines() if line.split()[:1] == ["0"])
    assert line == ["0", "50.0%", "-", "-", "-?", "0", "-", "-"]
    rows = [row for row in read_csv(tmp_path / "a.csv") if row["client"] == "0"]
    for column in ("effect", "centered_logit_without", "probability_without", "predicted_without"):
        assert [row[column] for row in rows] == [""] * 4
    found = json.loads(ask(run, "inputs=all", "--json"))
    assert found["clients"][-1] == {
        **{
            "client": "0",
            "weight": 0.5,
            "faulty": None,
            **dict.fromkeys(("effect", "effect_low", "effect_high")),
            **dict.fromkeys(("own_effect", "own_effect_low", "own_effect_high")),
            "carried": 0,
            "changed": 0,
            "right": 0,
            "measured": 0,
        },
        **dict.fromkeys(("shapley", "shapley_low", "shapley_high", "shapley_standard_error")),
    }
    assert "gives logits that are not finite" in ask(run, "inputs=all", "shapley=true")


def test_of_many_clients_the_two_ends_are_shown(run, ask):
    record = RoundStore(run / "rounds").read(1)
    own = record.clients["2"]

    def scaled(by):
        return {n: w * by if w.is_floating_point() else w for n, w in own.items()}

    clients = {str(k): scaled(1 + k / 100) for k in range(25)}
    p = dict.fromkeys(clients, 1 / 25)
    counts = json.loads((run / "label_counts.json").read_text())
    (run / "label_counts.json").write_text(json.dumps({**counts, "label_counts": [[1, 1, 1, 1]] * 25}))
    commit(run, RoundRecord(3, clients, p, record.previous_global, scaled(1.12)))
    shown = ask(run, "inputs=all")
    assert "5 more clients between the two parts of the table" in flat(shown)
    ranked = [client["client"] for client in json.loads(ask(run, "inputs=all", "--json"))["clients"]]
    lines = [line.split()[0] for line in shown.splitlines() if line.split()[1:2] == ["4.0%"]]
    assert lines == [*ranked[:10], *ranked[-10:]]
    assert "up to 10; this one has 25: give shapley=sampled" in ask(run, "shapley=exact", "inputs=all")
    found = json.loads(ask(run, "shapley=true", "permutations=4", "inputs=0", "--json"))
    assert found["shapley"]["method"] == "sampled"


def test_one_client_cannot_be_left_out(run, ask):
    record = RoundStore(run / "rounds").read(1)
    own = record.clients["2"]
    commit(run, RoundRecord(3, {"2": own}, {"2": 1.0}, record.previous_global, own))
    assert "has one client: there is no model without it" in ask(run)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["round=3"], "round 3 has no weights"),
        (["round=0"], "round must be a whole number from 1, got '0'"),
        (["round=1", "round=2"], "round is given twice: '1' and '2'"),
        (["rounds=1"], "unknown argument 'rounds=1'"),
        (["csv="], "'csv=' has no value"),
        (["csv=nowhere/a.csv"], "csv='nowhere/a.csv': give a file in a folder that exists"),
        (["csv=."], "csv='.': give a file in a folder that exists"),
        (["inputs=some"], "inputs must be traced, all, correct, mispredicted or numbers such as 3,17, got 'some'"),
        (["inputs=1,"], "got '1,'"),
        (["inputs=-1"], "got '-1'"),
        (["inputs=4"], "inputs=4: the server has examples 0 to 3"),
        (["inputs=1,1"], "inputs=1,1 names an example twice"),
        (["shapley=maybe"], "shapley must be one of true, exact, sampled, got 'maybe'"),
        (["permutations=10"], "give shapley=sampled with it"),
        (["shapley=exact", "permutations=10"], "give shapley=sampled with it"),
        (["shapley=sampled", "permutations=3"], "permutations must be an even number from 4"),
        (["shapley=sampled", "permutations=many"], "got 'many'"),
        (["provenance=best"], "unknown provenance 'best'"),
        (["provenance=off"], "traces nothing"),
        (["privacy.trace=before_noise"], "round 2 of"),
        (["provenance.layers=[a"], "'provenance.layers=[a' has a bracket or a quote without its end"),
        (["provenance.max_inputs=${nope}"], "nope"),
        (["baselines=all"], "unknown argument 'baselines=all'"),
        (["provenance.layers=[a]]"], "provenance.layers=[a]] cannot be read: "),
    ],
)
def test_bad_input_is_one_line(image_run, tmp_path, monkeypatch, ask, arguments, words):
    monkeypatch.chdir(tmp_path)
    line = ask(image_run, *arguments, *([] if any("csv" in a for a in arguments) else ["csv=a.csv"]))
    assert line.startswith("tracefl: ")
    assert len(line.splitlines()) == 1
    assert words in line
    assert not list(tmp_path.glob("*.csv"))


def test_no_folder_and_help(ask, tmp_path, monkeypatch, capfd):
    assert "no run is given" in ask("--json")
    assert "is no run's folder" in ask(tmp_path)
    status, out, _ = call_main(monkeypatch, capfd, main, "counterfactual", "--help")
    assert (status, "usage: tracefl counterfactual" in out) == (0, True)


def test_neither_flower_nor_ray_is_needed(image_run):
    code = """
import sys
for name in ("flwr", "ray"):
    sys.modules[name] = None  # any import of it raises
from tracefl.counterfactual import main
main()
"""
    command = [sys.executable, "-c", code, str(image_run), "inputs=all"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1])
    assert done.returncode == 0, done.stderr
    assert "removed from the average" in flat(done.stdout)
