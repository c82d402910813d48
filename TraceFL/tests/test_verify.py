"""``tracefl verify``: whole runs are whole, and what is not is named."""

import hashlib
import json
import re
import shutil

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from safetensors.torch import load_file

from tests.helpers.changed_runs import change_json, covered, freshen
from tests.helpers.commands import call_main, flat
from tests.helpers.keys import write_key
from tests.helpers.runs import TINY_MODEL, run
from tracefl.questions.verify import verify
from tracefl.records.checksums import seal
from tracefl.records.claim import Claim
from tracefl.verify import main

NOISY = ("fault=weight_noise", "fault.clients=[1]", "provenance.inputs=mispredicted")


@pytest.fixture
def copied(whole_run, tmp_path):
    return shutil.copytree(whole_run, tmp_path / "logs" / "run")


@pytest.fixture
def call(monkeypatch, capfd):
    """A function that calls the command: (status, stdout, stderr)."""

    def call(*arguments):
        capfd.readouterr()
        return call_main(monkeypatch, capfd, main, "verify", *arguments)

    return call


def problems(out):
    return [line.removeprefix("not whole: ") for line in facts(out) if line.startswith("not whole: ")]


def facts(out):
    """Return what was printed, a fact a line, wherever the terminal's width broke it."""
    return re.sub("\n {11,}", " ", out).splitlines()


def test_a_whole_run_is_whole(call, copied):
    status, out, err = call(copied)
    assert (status, err) == (0, "")
    checked, rounds, averages, not_covered, signature, last = facts(out)
    assert max(len(line) for line in out.splitlines() if str(copied) not in line) <= 80
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
        (("store=all", "strategy=fedprox", "strategy.max_update_norm=1"), "rounds 1 to 2: 4632 numbers"),
        (("store=all", "strategy=provenance_selection"), "rounds 1 to 2: 4632 numbers"),
        (("store=all", "provenance=off", "without=[2]", "without_from=2"), "rounds 1 to 2: 4632 numbers"),
    ],
)
def test_what_a_run_leaves_is_whole(call, tmp_path, keys, words):
    folder = run(tmp_path, *TINY_MODEL, *keys)
    status, out, _ = call(folder)
    assert status == 0, out
    assert words in flat(out)
    _, freshened, _ = call(folder)
    assert freshened == out


@pytest.mark.slow
def test_a_run_on_texts_and_one_that_mitigates_are_whole(call, tmp_path):
    text = ("model=gpt", "model.pretrained=false", "++model.config.n_layer=1", "++model.config.n_embd=16")
    text += ("++model.config.n_head=2", "model.tokenizer=trained", "model.tokenizer_vocab=300")
    folder = run(tmp_path / "text", *text, "dataset=synthetic_text", "dataset.max_tokens=16", "store=all")
    status, out, _ = call(folder)
    assert status == 0, out
    assert "in rounds 1 to 2" in flat(out)
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
    assert "made again of all clients in rounds 1 to 3" in flat(out)


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
        *(
            "mitigation.csv",
            "stand_outs.csv",
            "command.txt",
            "tokenizer/tokenizer.json",
            "rounds/0003/round.json",
            "rounds/0002/more",
        ),
        *("rounds/0002/weights/client-9.safetensors", "rounds/0002/weights/before_noise.safetensors", "rounds/x"),
        *("rounds/0\u00b2/weights/x", "rounds/2/round.json"),
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
    assert r"notes \x1b[31m" in flat(out)
    assert "away, ledger.csv, " in flat(out)
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
