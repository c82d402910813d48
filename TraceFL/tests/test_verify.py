"""``tracefl verify``: whole runs are whole, and whatever is done to a folder is found and named."""

import hashlib
import json
import os
import shutil

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file

from tests.helpers.commands import call_main
from tests.helpers.keys import write_key
from tests.helpers.runs import TINY_MODEL, run
from tracefl.provenance import RoundRecord
from tracefl.questions.verify import verify
from tracefl.records.checksums import seal, write_checksums
from tracefl.records.claim import Claim
from tracefl.records.run import StoredRun
from tracefl.records.store import RoundStore
from tracefl.verify import main

NOISY = ("fault=weight_noise", "fault.clients=[1]", "provenance.inputs=mispredicted")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of two rounds, all of whose weights are kept; tests only read it."""
    return run(tmp_path_factory.mktemp("whole"), *TINY_MODEL, *NOISY, "store=all", "baselines=fast")


@pytest.fixture
def copied(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "logs" / "run")


@pytest.fixture
def call(monkeypatch, capfd):
    """A function that calls the command: (status, stdout, stderr)."""

    def call(*arguments):
        capfd.readouterr()
        return call_main(monkeypatch, capfd, main, "verify", *arguments)

    return call


def freshen(folder):
    """Make all checksums again, as whoever changed the folder can."""
    for place in sorted((folder / "rounds").iterdir()):
        write_checksums(place)
    seal(folder)


def change_json(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def covered(folder):
    """Return all files that decide an answer: those that have a checksum."""
    lists = [folder, *sorted((folder / "rounds").iterdir())]
    return [
        str((place / line[66:]).relative_to(folder))
        for place in lists
        for line in (place / "SHA256SUMS").read_text().splitlines()
    ]


def problems(out):
    return [line.removeprefix("not whole: ") for line in out.splitlines() if line.startswith("not whole: ")]


def test_a_whole_run_is_whole(call, copied):
    status, out, err = call(copied)
    assert (status, err) == (0, "")
    checked, rounds, averages, not_covered, signature, last = out.splitlines()
    assert checked == f"checksums    {len(covered(copied))} files as written"
    assert rounds == "rounds       2, the run is complete"
    numbers = sum(
        t.numel() for t in load_file(copied / "rounds/0001/global.safetensors").values() if t.is_floating_point()
    )
    assert averages.startswith(
        f"averages     made again of all clients in rounds 1 to 2: {numbers} numbers a model, the "
    )
    assert 0 <= float(averages.rpartition(" ")[2]) < 1e-5
    assert not_covered == "not covered  report.html, rounds.png, run.log, status.json"
    assert signature == "signature    there is none; sign=PRIVATE_KEY makes one"
    assert last == f"{copied} is whole"


def test_json_is_all_that_is_printed(call, copied):
    status, out, err = call(copied, "--json")
    found = json.loads(out)
    assert (status, err, len(out.splitlines())) == (0, "", 1)
    assert (found["run"], found["whole"], found["problems"]) == (str(copied), True, [])
    assert [(each["server_round"], each["clients"], each["before_noise"]) for each in found["averages"]] == [
        (1, 3, False),
        (2, 3, False),
    ]
    (copied / "rounds.csv").unlink()
    status, out, _ = call(copied, "--json")
    found = json.loads(out)
    assert (status, found["whole"]) == (1, False)
    assert f"{copied / 'rounds.csv'} is missing" in found["problems"][0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (("store=all", "store.dtype=bfloat16"), "rounds 1 to 2: 4632 numbers"),
        (("store=all", "store.dtype=bfloat16", "store.kind=updates"), "rounds 1 to 2: 4632 numbers"),
        (("store=last",), "round 2: 4632 numbers"),
        (("store=none",), "no clients' weights are stored to average again"),
        (("store=all", "privacy=central"), "rounds 1 to 2, before privacy's noise, which is not checked: 4632 numbers"),
        (("store=all", "privacy=central_adaptive"), "rounds 1 to 2, before privacy's noise, which is not checked: 46"),
        (("store=all", "strategy=fedprox", "strategy.max_update_norm=0.5"), "rounds 1 to 2: 4632 numbers"),
        (("store=all", "strategy=provenance_selection"), "rounds 1 to 2: 4632 numbers"),
        (("store=all", "provenance=off", "without=[2]", "without_from=2"), "round 2: 4632 numbers"),
    ],
)
def test_what_a_run_leaves_is_whole(call, tmp_path, keys, words):
    folder = run(tmp_path, *TINY_MODEL, *keys)
    status, out, _ = call(folder)
    assert status == 0, out
    assert words in out
    _, freshened, _ = call(folder)
    assert freshened == out


@pytest.mark.slow
def test_a_run_on_texts_and_one_that_mitigates_are_whole(call, tmp_path):
    text = ("model=gpt", "model.pretrained=false", "++model.config.n_layer=1", "++model.config.n_embd=16")
    text += ("++model.config.n_head=2", "model.tokenizer=trained", "model.tokenizer_vocab=300")
    folder = run(tmp_path / "text", *text, "dataset=synthetic_text", "dataset.max_tokens=16", "store=all")
    status, out, _ = call(folder)
    assert status == 0, out
    assert "in rounds 1 to 2" in out
    (folder / "tokenizer" / "tokenizer.json").write_text("{}")
    freshen(folder)
    status, out, _ = call(folder)
    assert status == 1
    assert "tokenizer.json is damaged" in problems(out)[0]
    keys = ("mitigate=downweight", "mitigate.window=1", "mitigate.from_round=1", "clients_per_round=5", "num_rounds=3")
    folder = run(tmp_path / "mitigated", *TINY_MODEL, *NOISY, *keys, "store=all")
    assert (folder / "mitigation.csv").exists()
    status, out, _ = call(folder)
    assert status == 0, out
    assert "made again of all clients in rounds 1 to 3" in out


def test_every_turned_bit_cut_and_missing_file_is_named(call, copied):
    names = covered(copied)
    assert {
        "config.yaml",
        "fault.json",
        "suspects.csv",
        "rounds/0001/SHA256SUMS",
        "rounds/0002/global.safetensors",
    } <= {*names}
    for number, name in enumerate([*names, "SHA256SUMS"]):
        path = copied / name
        content = path.read_bytes()
        turned = content[:-1] + bytes([content[-1] ^ 1])
        path.write_bytes(turned if number % 2 else content[: len(content) // 2])
        found = verify(copied).problems
        assert any(name in problem for problem in found), (name, found)
        if number % 5 == 0:  # by the command too
            assert call(copied)[0] == 1
        path.unlink()
        found = verify(copied).problems
        assert any("missing" in problem or "no SHA256SUMS" in problem for problem in found), (name, found)
        path.write_bytes(content)
    assert verify(copied).is_whole


@pytest.mark.parametrize(
    "name",
    [
        *("mitigation.csv", "command.txt", "tokenizer/tokenizer.json", "rounds/0003/round.json", "rounds/0002/more"),
        *("rounds/0002/weights/client-9.safetensors", "rounds/0002/weights/before_noise.safetensors", "rounds/x"),
    ],
)
def test_a_file_that_a_run_s_answers_would_depend_on_is_not_added(call, copied, name):
    (copied / name).unlink(missing_ok=True)
    seal(copied)
    (copied / name).parent.mkdir(parents=True, exist_ok=True)
    (copied / name).write_text("x")
    status, out, _ = call(copied)
    assert status == 1
    assert f"{copied / name} has no line in SHA256SUMS, and a run's answers would depend on it" in problems(out)


def test_other_files_are_named_as_not_covered(call, copied):
    (copied / "notes \x1b[31m").write_text("mine")
    (copied / "ledger.csv").write_text("mine")
    (copied / "away").symlink_to("/etc")
    status, out, _ = call(copied)
    assert status == 0
    assert r"notes \x1b[31m" in out
    assert "away, ledger.csv, " in out
    for number in range(9):
        (copied / f"z{number}").write_text("")
    assert " and 8 more" in call(copied)[1]


def test_a_run_that_is_not_over_is_said_to_be(call, copied):
    (copied / "results.json").unlink()
    assert call(copied)[0] == 1  # it has a checksum
    seal(copied)
    status, out, _ = call(copied)
    assert status == 0
    assert "rounds       2, the run is not over" in out


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


def test_a_model_that_is_not_the_average_of_its_clients_is_found(call, copied):
    """In a single number of it, with all checksums made again."""
    name = a_name(copied, 1000)
    changed_weights(copied, "global.safetensors", shift(name, 617, 0.01))
    status, out, _ = call(copied)
    assert status == 1
    (problem,) = problems(out)
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
def test_a_model_that_is_not_finite_is_found(call, copied, number):
    name = a_name(copied)
    changed_weights(copied, "global.safetensors", shift(name, 0, number))
    assert "is not the weighted average" in verify(copied).problems[0]
    status, out, _ = call(copied, "--json")
    assert (status, json.loads(out, parse_constant=pytest.fail)["averages"][1]["apart"]) == (1, None)


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


def test_weights_of_a_round_that_are_gone_are_found(call, copied):
    shutil.rmtree(copied / "rounds/0001/weights")
    status, out, _ = call(copied)
    assert status == 1
    assert problems(out) == [f"{copied / 'rounds/0001/weights'} is missing, and config.yaml says store.keep=all"]
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
def test_what_cannot_be_is_found_with_all_checksums_made_again(call, copied, attack, words):
    attack(copied)
    freshen(copied)
    status, out, err = call(copied)
    assert (status, err) == (1, "")
    assert words in problems(out)[0]
    assert all(len(problem) < 1000 for problem in problems(out))


@pytest.mark.parametrize(("attack", "words"), [(attack_link, "is a link"), (attack_pipe, "is a pipe")])
def test_what_is_no_file_of_the_folder_is_found(call, copied, attack, words):
    attack(copied)
    status, out, _ = call(copied)
    assert status == 1
    assert words in problems(out)[0]


def test_a_broken_link_is_no_file_that_is_not_kept_any_more(call, copied):
    (copied / "rounds/0001/global.safetensors").unlink()
    (copied / "rounds/0001/global.safetensors").symlink_to("/nowhere")
    status, out, _ = call(copied)
    assert status == 1
    assert f"{copied / 'rounds/0001/global.safetensors'} is a link" in problems(out)[0]


@pytest.mark.parametrize(
    "line",
    [".", "/", "../x", "/etc/passwd", "nothing.csv", "rounds/x", "rounds/999999999/SHA256SUMS", "rounds/" + "9" * 200],
)
def test_a_checksum_of_what_is_not_there_is_a_line(call, copied, line):
    with (copied / "SHA256SUMS").open("a") as file:
        file.write(f"{hashlib.sha256(b'x').hexdigest()}  {line}\n")
    status, out, err = call(copied)
    assert (status, err) == (1, "")
    assert any(line in problem for problem in problems(out))


def test_a_folder_is_signed_and_the_signature_checked(call, copied, tmp_path):
    private, public = write_key(tmp_path, Ed25519PrivateKey.generate())
    _, other = write_key(tmp_path, Ed25519PrivateKey.generate(), "other")
    status, out, _ = call(copied, f"key={public}")
    assert (status, problems(out)) == (1, [f"{copied} has no SHA256SUMS.sig: it is not signed"])
    status, out, _ = call(copied, f"sign={private}")
    assert status == 0
    assert "signature    made with the key that was given, in SHA256SUMS.sig" in out
    assert "signature    there is one; key=PUBLIC_KEY checks it" in call(copied)[1]
    status, out, _ = call(copied, f"key={public}")
    assert status == 0
    assert "signature    SHA256SUMS is signed with the key that was given" in out
    assert json.loads(call(copied, f"key={public}", "--json")[1])["signature"] == "good"
    status, out, _ = call(copied, f"key={other}")
    assert status == 1
    assert "signature    SHA256SUMS is not signed with the key that was given" in out
    change_json(copied / "label_counts.json", label_names=[f"class {n}" for n in range(10)])
    seal(copied)  # as whoever has no key can
    status, out, _ = call(copied, f"key={public}")
    assert status == 1
    assert "is no signature of SHA256SUMS by the key that was given" in problems(out)[-1]


def test_a_folder_that_is_not_whole_is_not_signed(call, copied, tmp_path):
    private, _ = write_key(tmp_path, Ed25519PrivateKey.generate())
    (copied / "rounds.csv").write_text("")
    status, out, err = call(copied, f"sign={private}")
    assert (status, err) == (1, f"tracefl: {copied} is not whole, and was not signed\n")
    assert "rounds.csv is damaged" in problems(out)[0]
    assert not (copied / "SHA256SUMS.sig").exists()


def test_bad_input_is_one_line(call, copied, tmp_path):
    private, public = write_key(tmp_path, ec.generate_private_key(ec.SECP256R1()))
    for arguments, words in (
        ((tmp_path / "nothing",), "nothing"),
        ((tmp_path,), "no run"),
        ((copied, "round=2"), "unknown argument 'round=2'"),
        ((copied, f"key={tmp_path / 'gone'}"), "is no file; give that of the key"),
        ((copied, f"sign={tmp_path}"), "is no file; give that of the key"),
        ((copied, f"key={public}"), "holds a key of another kind than Ed25519"),
        ((copied, f"sign={private}"), "holds a key of another kind than Ed25519"),
        ((copied, f"sign={private}", f"key={public}"), "give one of them, and then the other"),
    ):
        status, out, err = call(*arguments)
        assert (status, out, len(err.splitlines())) == (2, "", 1), arguments
        assert words in err
    assert not (copied / "SHA256SUMS.sig").exists()


def test_a_run_that_is_being_made_is_not_verified(call, copied):
    claim = Claim(copied)
    status, out, err = call(copied)
    claim.release()
    assert (status, out) == (2, "")
    assert "is being written; verify it when the run is over" in err
    assert call(copied)[0] == 0


def test_nothing_is_changed_by_looking(call, copied):
    def state():
        return {str(p): (p.stat().st_mtime_ns, p.stat().st_size) for p in sorted(copied.rglob("*"))}

    before = state()
    assert call(copied)[0] == 0
    assert state() == before


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
    from tracefl.provenance.comparison import compare_whole
    from tracefl.provenance.reading import read_round

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
