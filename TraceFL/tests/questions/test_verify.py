"""What is found in a folder that somebody changed, with all checksums made again."""

import json
import os
import shutil

import pytest
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file

from tests.helpers.changed_runs import change_json, freshen
from tracefl.provenance import RoundRecord, StandOuts
from tracefl.provenance.comparison import compare_whole
from tracefl.provenance.reading import read_round
from tracefl.questions.stand_outs import add_round, summarize_stand_outs
from tracefl.questions.verify import verify
from tracefl.records.checksums import seal, write_checksums
from tracefl.records.result import tables_of
from tracefl.records.run import StoredRun
from tracefl.records.store import RoundStore
from tracefl.records.tables import to_csv
from tracefl.report.verify import as_json


@pytest.fixture
def copied(whole_run, tmp_path):
    return shutil.copytree(whole_run, tmp_path / "logs" / "run")


def changed_weights(folder, name, change, round_number=2):
    path = folder / "rounds" / f"000{round_number}" / name
    weights = load_file(path)
    change(weights)
    save_file(weights, path)
    freshen(folder)


def a_name(folder, entries=1):
    """Return the name of a tensor of as many floating-point numbers at least."""
    weights = load_file(folder / "rounds/0002/global.safetensors")
    return next(name for name, w in weights.items() if w.is_floating_point() and w.numel() >= entries)


def shift(name, entry, by):
    def change(weights):
        weights[name].view(-1)[entry] += by

    return change


def test_a_model_that_is_not_the_average_of_its_clients_is_found(copied):
    """In a single number of it, with all checksums made again."""
    name = a_name(copied, 1000)
    changed_weights(copied, "global.safetensors", shift(name, 617, 0.01))
    (problem,) = verify(copied).problems
    assert problem.startswith(
        f"{copied / 'rounds/0002'}: the global model of round 2 is not the weighted average of its "
    )
    assert f"{name!r} differs by up to 0.01" in problem
    found = verify(copied)
    assert found.averages[1].apart == pytest.approx(0.01, rel=1e-3)


def test_a_client_s_weights_that_are_not_what_was_averaged_are_found(copied):
    client = next(path.name for path in (copied / "rounds/0002/weights").glob("client-*"))
    name = a_name(copied)
    changed_weights(copied, f"weights/{client}", shift(name, 0, 0.1))
    (problem,) = verify(copied).problems
    assert "is not the weighted average of its clients" in problem
    changed_weights(copied, f"weights/{client}", shift(name, 0, float("nan")))
    (problem,) = verify(copied).problems
    assert "holds values that are not finite" in problem


def test_weights_p_that_are_not_those_of_the_average_are_found(copied):
    path = copied / "rounds/0002/round.json"
    clients = json.loads(path.read_text())["client_weights"]
    change_json(path, client_weights=dict(zip(clients, (0.5, 0.3, 0.2), strict=True)))
    freshen(copied)
    assert any("is not the weighted average of its clients" in problem for problem in verify(copied).problems)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_model_that_is_not_finite_is_found(copied, number):
    name = a_name(copied)
    changed_weights(copied, "global.safetensors", shift(name, 0, number))
    assert "is not the weighted average" in verify(copied).problems[0]
    found = json.dumps(as_json(verify(copied)), allow_nan=False)
    assert json.loads(found)["averages"][1]["apart"] is None


def test_a_round_that_did_not_start_where_the_one_before_ended_is_found(copied):
    name = a_name(copied)
    changed_weights(copied, "weights/previous_global.safetensors", shift(name, 0, 0.1))
    (problem,) = verify(copied).problems
    assert problem == (f"{copied / 'rounds/0002'} started from other weights than round 1 ended with: {name!r} differs")


def test_a_server_that_takes_a_step_is_not_taken_for_an_average(copied):
    """As those of FedAvgM or FedAdam do: a strategy of one's own, of which no removal is exact either."""
    store = RoundStore(copied / "rounds", keep="all")
    record, result = store.read(2), store.result(2)
    stepped = {
        name: (record.previous_global[name] + 0.5 * (tensor - record.previous_global[name])).to(tensor)
        for name, tensor in record.global_weights.items()
    }
    clients = {client: dict(weights) for client, weights in record.clients.items()}
    shutil.rmtree(copied / "rounds/0002")
    store.commit(result, RoundRecord(2, clients, record.client_weights, record.previous_global, stepped))
    freshen(copied)
    (problem,) = verify(copied).problems
    assert "is not the weighted average of its clients" in problem


def test_weights_of_a_round_that_are_gone_are_found(copied):
    shutil.rmtree(copied / "rounds/0001/weights")
    assert verify(copied).problems == [
        f"{copied / 'rounds/0001/weights'} is missing, and config.yaml says store.keep=all"
    ]
    write_checksums(copied / "rounds/0001")  # as of a session that kept none
    seal(copied)
    assert verify(copied).is_whole


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace(b"\n1,", b"\n2,", 1),
        lambda text: text[: text.rindex(b"\n", 0, -1) + 1],
        lambda text: text + text.splitlines(keepends=True)[-1],
        lambda text: b"\xff\xfe" + text,
        lambda text: b"x" * 200_000,
        lambda text: b"\x00",
        lambda text: b"",
    ],
)
def test_a_table_that_does_not_say_what_the_rounds_say_is_found(copied, change):
    for name in ("rounds.csv", "provenance.csv", "suspects.csv"):
        (copied / name).write_bytes(change((copied / name).read_bytes()))
    freshen(copied)
    assert verify(copied).problems == [
        f"{copied / name} does not say what the rounds' round.json say"
        for name in ("rounds.csv", "provenance.csv", "suspects.csv")
    ]


def test_a_table_may_write_a_number_in_another_way(copied):
    text = (copied / "rounds.csv").read_text()
    (copied / "rounds.csv").write_text(text.replace("\n1,", "\n1.0,"))
    freshen(copied)
    assert verify(copied).is_whole


def test_a_cell_may_be_as_long_as_its_clients_are_many(copied):
    """Longer than Python's csv takes without being told, and written with other numbers."""
    ranking = " ".join(f"{number}:0.123456" for number in range(20_000))
    path = copied / "rounds/0002/round.json"
    content = json.loads(path.read_text())
    content["suspects"][0]["ranking"] = ranking
    content["row"]["inputs_traced"] = 7
    path.write_text(json.dumps(content))
    lines = (copied / "suspects.csv").read_text().splitlines()
    (row,) = [n for n, line in enumerate(lines) if line.startswith(f"2,{content['suspects'][0]['rule']},")]
    cells = lines[row].split(",")
    cells[lines[0].split(",").index("ranking")] = ranking
    lines[row] = ",".join(cells)
    (copied / "suspects.csv").write_text("\n".join(lines) + "\n")
    freshen(copied)
    assert not any("suspects.csv" in problem for problem in verify(copied).problems)


@pytest.mark.parametrize("key", ["seed", "final", "mean", "suspects", "clients_dropped", "clients_capped", "classes"])
def test_a_summary_that_does_not_say_what_the_rounds_say_is_found(copied, key):
    found = json.loads((copied / "results.json").read_text())
    other = {
        **{"seed": found["seed"] + 1, "final": found["final"] | {"global_loss": 0.125}, "suspects": []},
        **{"mean": found["mean"] | {"global_accuracy": 0.999}, "clients_dropped": 1, "clients_capped": {"1": 2}},
        **{"classes": found["classes"][::-1]},
    }
    change_json(copied / "results.json", **{key: other[key]})
    freshen(copied)
    (problem,) = verify(copied).problems
    assert problem == f"{copied / 'results.json'} does not say what the rounds say, of {key}"


def tell_who_stands_out(folder, change=lambda number, content: None):
    """Let the rounds say that clients stand out, and all files what the rounds say; a round's content is changed."""
    added = StandOuts(0.01)
    for number in (1, 2):
        path = folder / f"rounds/000{number}/round.json"
        content = json.loads(path.read_text())
        suspicions = {k: [2.0 + int(k) / 4] + [0.5] * 9 for k in content["client_weights"]}
        content |= {"class_suspicions": suspicions, "stand_outs": [*add_round(added, number, suspicions)]}
        change(number, content)
        path.write_text(json.dumps(content))
    freshen(folder)
    results = list(RoundStore(folder / "rounds").results())
    change_json(folder / "results.json", stand_outs=summarize_stand_outs(results))
    (folder / "stand_outs.csv").write_text(to_csv(*tables_of(results)["stand_outs.csv"]))
    freshen(folder)


def test_a_folder_that_says_who_stands_out_is_whole(copied):
    tell_who_stands_out(copied)
    assert verify(copied).is_whole
    assert (copied / "stand_outs.csv").read_text().count("\n") == 1 + 2 * 3


@pytest.mark.parametrize(
    ("number", "column", "value"),
    [(2, "total", 0.25), (1, "total", 0.0), (2, "toward", 1), (2, "since", 3), (1, "named", True)],
)
def test_stand_outs_that_the_suspicions_do_not_add_up_to_are_found(copied, number, column, value):
    """A sum that was changed in a round.json, and with it the table, the summary and all checksums."""

    def change(of_round, content):
        if of_round == number:
            row = content["stand_outs"][0]
            assert row[column] != value
            row[column] = value

    tell_who_stands_out(copied, change)
    (problem,) = verify(copied).problems
    assert problem == f"{copied / 'stand_outs.csv'} does not say what the rounds' suspicions add up to"


def test_a_suspicion_that_was_changed_is_found(copied):
    def change(number, content):
        if number == 1:
            next(iter(content["class_suspicions"].values()))[0] += 0.25

    tell_who_stands_out(copied, change)
    (problem,) = verify(copied).problems
    assert problem == f"{copied / 'stand_outs.csv'} does not say what the rounds' suspicions add up to"


def test_a_summary_of_who_stands_out_that_the_rounds_do_not_say_is_found(copied):
    tell_who_stands_out(copied)
    found = json.loads((copied / "results.json").read_text())["stand_outs"]
    assert (found["rounds"], found["most"]["toward"]) == (2, 0)
    change_json(copied / "results.json", stand_outs=found | {"rounds": 1})
    freshen(copied)
    assert verify(copied).problems == [f"{copied / 'results.json'} does not say what the rounds say, of stand_outs"]


def attack_config(folder):
    config = OmegaConf.load(folder / "config.yaml")
    config.wandb.project = "${oc.env:HOME}"
    OmegaConf.save(config, folder / "config.yaml")


def attack_header(folder):
    header = json.dumps({"x": {"a": "b"}}).encode()
    (folder / "server.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)


def attack_row(column, value):
    def change(folder):
        path = folder / "rounds/0002/round.json"
        content = json.loads(path.read_text())
        content["row"][column] = value
        path.write_text(json.dumps(content))

    return change


def attack_link(folder):
    (folder / "model.json").rename(folder.parent / "model.json")
    (folder / "model.json").symlink_to(folder.parent / "model.json")


def attack_pipe(folder):
    (folder / "rounds/0002/weights/previous_global.safetensors").unlink()
    os.mkfifo(folder / "rounds/0002/weights/previous_global.safetensors")


@pytest.mark.parametrize(
    ("attack", "words"),
    [
        (attack_config, "config.yaml is damaged or of another version of tracefl: it has '${oc.env:HOME}'"),
        (attack_header, "server.safetensors is no whole safetensors file: its header has 'x', which is no tensor"),
        (attack_row("class_accuracy", "9" * 5000 + ":1"), "round.json is damaged or of another version of tracefl"),
        (attack_row("global_accuracy", 3), "row.global_accuracy should be less than or equal to 1, got 3"),
        (attack_row("round", 1), "it speaks of round 1, in the place of round 2"),
        (lambda folder: change_json(folder / "model.json", num_classes=3), "global.safetensors"),
        (lambda folder: change_json(folder / "fault.json", clients=["9"]), "fault.json is damaged: it has clients 9"),
        (lambda folder: (folder / "model.json").write_text("{}"), "model.json is damaged or of another version"),
    ],
)
def test_what_cannot_be_is_found_with_all_checksums_made_again(copied, attack, words):
    attack(copied)
    freshen(copied)
    found = verify(copied).problems
    assert words in found[0]
    assert all(len(problem) < 1000 for problem in found)


@pytest.mark.parametrize(("attack", "words"), [(attack_link, "is a link"), (attack_pipe, "is a pipe")])
def test_what_is_no_file_of_the_folder_is_found(copied, attack, words):
    attack(copied)
    assert words in verify(copied).problems[0]


def test_a_broken_link_is_no_file_that_is_not_kept_any_more(copied):
    (copied / "rounds/0001/global.safetensors").unlink()
    (copied / "rounds/0001/global.safetensors").symlink_to("/nowhere")
    assert f"{copied / 'rounds/0001/global.safetensors'} is a link" in verify(copied).problems[0]


def test_a_deployment_s_keys_are_checked(copied):
    path = copied / "label_counts.json"
    key = f"SHA256:{'A' * 43}"
    change_json(path, deployed=True, keys={str(n): key[:-1] + "BCDEF"[n] for n in range(5)})
    freshen(copied)
    assert verify(copied).is_whole
    assert StoredRun(copied).keys["3"].endswith("E")
    for keys, words in (
        ({str(n): key[:-1] + "BCDEF"[n] for n in range(4)}, "it has no keys of some clients that hold examples"),
        ({str(n): key[:-1] + "BCDEFG"[n] for n in range(6)}, "it has the key of client 5, and no examples of it"),
        (dict.fromkeys("01234", key), "it has one key of several clients"),
        ({str(n): "x" for n in range(5)}, "keys.0 should match pattern"),
    ):
        change_json(path, keys=keys)
        freshen(copied)
        (problem,) = verify(copied).problems[:1]
        assert problem.startswith(f"{path} is damaged")
        assert words in problem


def test_all_of_the_model_is_compared_however_much_is_read_at_once(copied):
    model, record = StoredRun(copied).round(2)
    read = read_round(model, record)
    at_once, in_parts = compare_whole(read), compare_whole(read, numbers_at_once=100)
    assert at_once == in_parts
    assert at_once.compared == sum(t.numel() for t in record.global_weights.values() if t.is_floating_point())
    assert at_once.refusal is None
    average = {
        name: sum(p * record.clients[k][name].double() for k, p in record.client_weights.items())
        for name, tensor in record.global_weights.items()
        if tensor.is_floating_point()
    }
    apart = max(float((average[name] - record.global_weights[name].double()).abs().max()) for name in average)
    assert at_once.apart == pytest.approx(apart)
