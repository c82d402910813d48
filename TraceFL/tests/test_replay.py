"""The command on folders made by hand: its numbers by a slow reading, its files, and what it refuses."""

import json
import shutil
from dataclasses import asdict

import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from tests.helpers.commands import call_main, flat
from tests.helpers.replayed_runs import FLIP, ROUNDS, make_replayed_run
from tests.helpers.tables import read_csv, whole_row
from tracefl.learning.examples import PIXELS
from tracefl.learning.faults import Fault, Trigger
from tracefl.learning.models import ModelSpec, build_model
from tracefl.provenance import RoundRecord
from tracefl.records.checksums import seal
from tracefl.records.result import RoundResult
from tracefl.records.run import StoredRun
from tracefl.records.store import RoundStore
from tracefl.replay import main
from tracefl.report.replay import REPLAY_COLUMNS


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_replayed_run(tmp_path_factory.mktemp("made"))


@pytest.fixture
def run(made, tmp_path):
    return shutil.copytree(made[0], tmp_path / "run")


def call(monkeypatch, capsys, *arguments):
    return call_main(monkeypatch, capsys, main, "replay", *arguments)


def predict(run, weights, trigger=False):
    """What a model says of the server's examples, one image at a time."""
    stored = StoredRun(run)
    model = build_model(ModelSpec.from_json((run / "model.json").read_text())).eval()
    model.load_state_dict(weights)
    server = stored.server
    pixels = server.features[PIXELS].clone()
    if trigger:
        pixels[..., -2:, -2:] = 255
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (server.mean, server.std))
    with torch.no_grad():
        return [int(model((image[None] / 255 - mean) / std).argmax()) for image in pixels], server.labels.tolist()


def slow_numbers(run, weights, fault=FLIP):
    predicted, labels = predict(run, weights)
    accuracy = sum(p == y for p, y in zip(predicted, labels, strict=True)) / len(labels)
    of = [[p == y for p, y in zip(predicted, labels, strict=True) if y == number] for number in range(4)]
    by_class = [sum(right) / len(right) for right in of]
    if fault.trigger is None:
        led = [p == fault.flips[y] for p, y in zip(predicted, labels, strict=True) if y in fault.flips]
    else:
        predicted, _ = predict(run, weights, trigger=True)
        led = [p == fault.target for p, y in zip(predicted, labels, strict=True) if y != fault.target]
    return {"accuracy": accuracy, "attack_success": sum(led) / len(led), "class_accuracy": by_class}


def slow_weights(records, without, carry, buffers=("running_mean", "running_var")):
    """The replayed weights of each round, by the definition."""
    replayed, found = dict(records[0].previous_global), []
    for record in records:
        others = [k for k in record.clients if k not in without]
        share = sum(record.client_weights[k] for k in others)
        for name, start in record.previous_global.items():
            if not others or not start.is_floating_point():
                continue
            mean = sum(record.client_weights[k] / share * record.clients[k][name].double() for k in others)
            kept = 0.0 if name.endswith(buffers) else carry
            replayed[name] = mean + kept * (replayed[name].double() - start.double())
        found.append({name: tensor.to(record.global_weights[name]) for name, tensor in replayed.items()})
    return found


@pytest.mark.parametrize(("first", "without", "carry"), [(1, "2", 0.5), (1, "0,3", 1.0), (2, "3", 0.0), (1, "2", None)])
def test_the_numbers(monkeypatch, capsys, made, run, first, without, carry):
    own = [] if carry is None else [f"carry={carry}"]
    status, out, err = call(monkeypatch, capsys, run, f"without_from={first}", f"without={without}", "--json", *own)
    assert (status, err) == (0, "")
    found = json.loads(out)
    records, named = made[1][first - 1 :], without.split(",")
    expected = slow_weights(records, named, 0.25 if carry is None else carry)
    assert (found["how"], found["without_from"], found["without"]) == ("reaggregate", first, named)
    assert [r["round"] for r in found["rounds"]] == list(range(first, 5))
    for said, record, weights in zip(found["rounds"], records, expected, strict=True):
        assert said["with"] == slow_numbers(run, record.global_weights)
        assert said["without"] == slow_numbers(run, weights)
        assert said["clients"] == [k for k in record.clients if k not in named]
        assert said["clients_removed"] == [k for k in record.clients if k in named]
    assert (
        len({r["without"]["accuracy"] for r in found["rounds"]} | {r["with"]["accuracy"] for r in found["rounds"]}) > 2
    )
    assert {f"replay-without-{'-'.join(named)}-from-{first}.{kind}" for kind in ("csv", "png", "pdf")} == {
        path.name for path in run.iterdir() if path.name.startswith("replay")
    }


def test_the_table_and_the_csv(monkeypatch, capsys, run, tmp_path):
    files = (f"csv={tmp_path / 'a.csv'}", f"png={tmp_path / 'a.png'}")
    _, out, _ = call(monkeypatch, capsys, run, "without_from=1", "without=2", "--json", *files)
    found = json.loads(out)
    assert found["files"] == [str(tmp_path / f"a.{kind}") for kind in ("csv", "png", "pdf")]
    status, out, err = call(monkeypatch, capsys, run, "without_from=1", "without=2", *files)
    assert (status, err) == (0, "")
    assert "run without client 2 from round 1, averaged again" in flat(out)
    assert "an estimate from round 2 on, carry=0.25" in flat(out)
    lines = [line.split() for line in out.splitlines() if line.split() and line.split()[0].isdigit()]
    rounds, classes = lines[:4], lines[4:]

    def percents(*fractions):
        return [f"{100 * fraction:.1f}%" for fraction in fractions]

    for line, r, ids in zip(rounds, found["rounds"], ROUNDS, strict=True):
        assert line[:3] == [str(r["round"]), str(len(set(ids) - {"2"})), str(int("2" in ids))]
        both = r["with"], r["without"]
        assert line[3:] == percents(*(m["accuracy"] for m in both), *(m["attack_success"] for m in both))
    last = found["rounds"][-1]
    for number, line in enumerate(classes):
        assert line[-2:] == percents(*(last[side]["class_accuracy"][number] for side in ("with", "without")))
    assert len(classes) == 4
    assert "2 (Cat)" in out
    rows = read_csv(tmp_path / "a.csv")
    assert tuple(rows[0]) == REPLAY_COLUMNS
    assert len(rows) == 4 * 5
    for r in found["rounds"]:
        whole, *by_class = (row for row in rows if row["round"] == str(r["round"]))
        assert whole["class"] == "all"
        assert float(whole["accuracy"]) == r["with"]["accuracy"]
        assert float(whole["attack_success_without"]) == r["without"]["attack_success"]
        assert whole["clients"].split() == r["clients"]
        assert [float(row["accuracy_without"]) for row in by_class] == r["without"]["class_accuracy"]
        assert [row["class_name"] for row in by_class] == ["ant", "bee", "Cat", "dog"]
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.width > 800
    assert (tmp_path / "a.pdf").read_bytes().startswith(b"%PDF")


def test_a_client_that_was_not_there_changes_nothing_and_is_named(monkeypatch, capsys, run):
    status, out, _ = call(monkeypatch, capsys, run, "without_from=1", "without=1", "--json")
    assert status == 0
    found = json.loads(out)
    assert "warning: client 1 took part in no round from 1 on" in found["notes"][0]
    assert all(r["with"] == r["without"] and r["exact"] for r in found["rounds"])


def test_a_round_of_nobody_else_is_said(monkeypatch, capsys, tmp_path):
    run, _ = make_replayed_run(tmp_path, rounds=("02", "2", "0"))
    status, out, _ = call(monkeypatch, capsys, run, "without_from=1", "without=2")
    assert status == 0
    assert "round 2 has no other client, and changes nothing" in flat(out)


def test_a_backdoor_is_measured_with_its_trigger(monkeypatch, capsys, tmp_path):
    backdoor = Fault("backdoor", ("2",), from_round=1, target=1, trigger=Trigger(size=2), share=0.5)
    run, records = make_replayed_run(tmp_path, rounds=("023", "23"), fault=backdoor)
    _, out, _ = call(monkeypatch, capsys, run, "without_from=1", "without=2", "--json")
    for said, record, weights in zip(
        json.loads(out)["rounds"], records, slow_weights(records, ["2"], 0.25), strict=True
    ):
        assert said["with"] == slow_numbers(run, record.global_weights, backdoor)
        assert said["without"] == slow_numbers(run, weights, backdoor)


@pytest.mark.parametrize("fault", [None, Fault("free_rider", ("2",), from_round=1, scale=0.1)])
def test_no_attack_no_attack_success(monkeypatch, capsys, tmp_path, fault):
    run, _ = make_replayed_run(tmp_path, rounds=("02", "23"), fault=fault)
    status, out, _ = call(monkeypatch, capsys, run, "without_from=1", "without=2")
    assert status == 0
    assert ("no attack success: free_rider aims at no class" in flat(out)) == (fault is not None)
    assert "attack success\n" not in out
    assert read_csv(run / "replay-without-2-from-1.csv")[0]["attack_success"] == ""


def test_what_is_no_average_and_noise_are_said(monkeypatch, capsys, tmp_path):
    run, records = make_replayed_run(tmp_path, rounds=("02", "023"))
    shutil.rmtree(run / "rounds" / "0002")
    r = records[1]
    other = {name: tensor + 1 if "fc" in name else tensor for name, tensor in r.global_weights.items()}
    noisy = {name: tensor + 0.01 if "fc" in name else tensor for name, tensor in other.items()}
    record = RoundRecord(2, r.clients, r.client_weights, r.previous_global, noisy, other)
    RoundStore(run / "rounds", keep="all").commit(
        RoundResult(whole_row(round=2, global_accuracy=0.5), (), (), r.client_weights, {}), record
    )
    seal(run)
    status, out, _ = call(monkeypatch, capsys, run, "without_from=2", "without=3")
    assert status == 0
    assert "round 2: what the server made is not the average of the clients' stored weights, off by" in flat(out)
    assert "round 2 keeps the noise that was drawn for 3 clients" in flat(out)


def test_many_clients_have_a_short_name(monkeypatch, capsys, run):
    labels = json.loads((run / "label_counts.json").read_text())
    (run / "label_counts.json").write_text(json.dumps({**labels, "label_counts": [[1, 1, 1, 1]] * 300}))
    seal(run)
    named = ",".join(map(str, range(2, 300)))
    status, out, _ = call(monkeypatch, capsys, run, "without_from=1", f"without={named}", "--json")
    assert status == 0
    assert json.loads(out)["files"][0].startswith(f"{run}/replay-without-298-clients-")


def test_without_a_round_it_is_from_the_first_on(monkeypatch, capsys, run):
    assert call(monkeypatch, capsys, run, "without=2")[0] == 0
    assert (run / "replay-without-2-from-1.csv").exists()


def test_whoever_is_left_in_the_replayed_rounds_is_enough(monkeypatch, capsys, run):
    assert call(monkeypatch, capsys, run, "without_from=3", "without=0,2")[0] == 0


def test_rounds_before_the_first_are_not_looked_at(monkeypatch, capsys, run):
    (run / "rounds" / "0001" / "round.json").write_text("{}")
    assert call(monkeypatch, capsys, run, "without_from=3", "without=2")[0] == 0
    status, _, err = call(monkeypatch, capsys, run, "without_from=1", "without=2")
    assert status == 2
    assert "0001/round.json is damaged" in err


def lose_what_was_kept(run):
    config = OmegaConf.load(run / "config.yaml")
    config.store.keep = "all"
    OmegaConf.save(config, run / "config.yaml")
    seal(run)
    shutil.rmtree(run / "rounds" / "0003" / "weights")


def damage(run):
    path = run / "rounds" / "0002" / "weights" / "client-3.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("spoil", "arguments", "words"),
    [
        (None, ["without_from=1", "without=4"], "without names client 4, and the run's clients are 0 to 3"),
        (None, ["without_from=5", "without=2"], "without_from=5, and RUN has rounds 1 to 4; name one of those"),
        (
            None,
            ["without_from=1", "without=0,2,3"],
            "names every client that took part from round 1 on, and nobody is left",
        ),
        (None, ["without_from=0", "without=2"], "without_from must be a whole number from 1, got '0'"),
        (None, ["without_from=last", "without=2"], "without_from must be a whole number from 1, got 'last'"),
        (None, ["without_from=1", "without=two"], "without must be the clients' numbers such as 3 or 3,7, got 'two'"),
        (None, ["without_from=1", "without=,"], "without must be the clients' numbers"),
        (
            None,
            ["without_from=1"],
            "without= is missing: the clients to leave out; the run's faulty ones: without=2; see tracefl replay",
        ),
        (None, ["without_from=1", "without=2", "how=guess"], "how must be one of reaggregate, train, got 'guess'"),
        (None, ["without_from=1", "without=2", "carry=2"], "carry must be a number in [0, 1], got '2'"),
        (None, ["without_from=1", "without=2", "carry=nan"], "carry must be a number in [0, 1], got 'nan'"),
        (None, ["without_from=1", "without=2", "round=1"], "unknown argument 'round=1'"),
        (None, ["without_from=1", "without=2", "csv=no/a.csv"], "csv='no/a.csv': give a file in a folder that exists"),
        (
            None,
            ["without_from=1", "without=2", "csv=a.png"],
            "csv='a.png': give a file that ends in .csv",
        ),
        (
            None,
            ["without_from=1", "without=2", "csv=RUN/rounds.csv"],
            "give a file that is none of the run's own, such as replay.csv",
        ),
        (None, ["without_from=1", "without=2", "png=a.txt"], "png='a.txt': give a file that ends in .png"),
        (None, ["without_from=1", "without=2", "png=a.pdf"], "png='a.pdf': give a file that ends in .png"),
        (
            None,
            ["without_from=1", "without=2", "how=train", "carry=0"],
            "carry=0 is for averaging again, and how=train trains",
        ),
        (
            lambda run: ((run / "model.json").write_bytes(b"\xff\xfe"), seal(run)),
            ["without_from=1", "without=2"],
            "RUN/model.json is damaged or of another version of tracefl: it is no JSON",
        ),
        (damage, ["without_from=1", "without=2"], "client-3.safetensors is damaged"),
        (
            lambda run: (run / "config.yaml").unlink(),
            ["without_from=1", "without=2"],
            "is no run's folder: it has no config",
        ),
        (lambda run: shutil.rmtree(run / "rounds"), ["without_from=1", "without=2"], "round 1 is missing in RUN"),
        (
            lambda run: (shutil.rmtree(run / "rounds"), seal(run)),
            ["without_from=1", "without=2"],
            "has no round yet",
        ),
        (
            lambda run: shutil.rmtree(run / "rounds" / "0002"),
            ["without_from=1", "without=2"],
            "round 2 is missing in RUN",
        ),
        (
            lambda run: shutil.rmtree(run / "rounds" / "0003" / "weights"),
            ["without_from=2", "without=2", "how=reaggregate"],
            "RUN has no weights of round 3, and how=reaggregate needs those of rounds 2 to 4; run with store=all, or",
        ),
        (
            lose_what_was_kept,
            ["without_from=2", "without=2"],
            "RUN/rounds/0003/weights is missing: config.yaml says store.keep=all; use another copy, or give how=train",
        ),
    ],
)
def test_what_cannot_be_replayed(monkeypatch, capsys, run, spoil, arguments, words):
    if spoil is not None:
        spoil(run)
    status, out, err = call(monkeypatch, capsys, run, *(a.replace("RUN", str(run)) for a in arguments))
    assert (status, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert words.replace("RUN", str(run)) in err
    assert not [path for path in run.parent.rglob("*") if path.name.startswith(("replay", ".replay"))]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["nowhere", "without_from=1", "without=2"], "begins with 'nowhere'"), (["--json"], "no run is given")],
)
def test_no_run(monkeypatch, capsys, tmp_path, arguments, words):
    monkeypatch.chdir(tmp_path)
    status, _, err = call(monkeypatch, capsys, *arguments)
    assert status == 2
    assert words in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (None, "the clients to leave out, such as without=3,7; see tracefl replay --help"),
        (
            Fault("free_rider", ("2", "5"), 1, scale=0.1),
            "the clients to leave out; the run's faulty ones: without=2,5; see tracefl replay --help",
        ),
        ("{", "fault.json is damaged"),
        ("{}", "fault.json is damaged or of another version of tracefl: it lacks name"),
    ],
)
def test_whom_to_leave_out_is_suggested_without_loading_the_run(monkeypatch, capsys, tmp_path, fault, words):
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "logs" / "default" / "run"
    run.mkdir(parents=True)
    (run / "config.yaml").touch()
    if fault is not None:
        given = fault if isinstance(fault, str) else json.dumps(asdict(fault) | {"changes": []})
        (run / "fault.json").write_text(given)
    seal(run)
    status, out, err = call(monkeypatch, capsys, "last")
    assert (status, out) == (2, "")
    assert err.startswith("tracefl: reading logs/default/run\ntracefl: ")
    assert words in err.splitlines()[1]


def test_help(monkeypatch, capsys):
    status, out, _ = call(monkeypatch, capsys, "--help")
    assert status == 0
    assert "usage: tracefl replay" in out
