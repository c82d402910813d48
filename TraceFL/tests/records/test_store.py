import dataclasses
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from tests.helpers.random_rounds import record, result
from tracefl.errors import RecordError
from tracefl.provenance import RoundRecord
from tracefl.records import checksums
from tracefl.records.store import RoundStore


def test_a_round_reads_back_as_it_was(tmp_path):
    store = RoundStore(tmp_path, "all")
    store.commit(result(), record())
    found = store.read(1)
    assert_close(dict(found.clients), dict(record().clients), rtol=0, atol=0)
    assert_close(found.global_weights, record().global_weights, rtol=0, atol=0)
    assert_close(found.previous_global, record().previous_global, rtol=0, atol=0)
    assert found.client_weights == {"3": 0.25, "7": 0.75}
    assert list(store.results()) == [result()]
    assert result().refused == ("9",)
    modes = {path.stat().st_mode & 0o777 for path in tmp_path.rglob("*") if path.is_file()}
    assert len(modes) == 1  # weights are shared as the other files are


def test_the_average_before_the_noise_is_kept(tmp_path):
    noisy = dataclasses.replace(record(), before_noise=record(2).global_weights)
    store = RoundStore(tmp_path, "all")
    store.commit(result(), noisy)
    found = store.read(1)
    assert_close(found.before_noise, record(2).global_weights, rtol=0, atol=0)
    assert found.average is found.before_noise
    assert_close(found.global_weights, record().global_weights, rtol=0, atol=0)


@pytest.mark.parametrize(("kept", "stored"), [("none", []), ("last", [3]), ("all", [1, 2, 3])])
def test_what_is_stored(tmp_path, kept, stored):
    store = RoundStore(tmp_path, kept)
    for n in (1, 2, 3):
        store.commit(result(n), record(n))
    assert store.stored_rounds() == stored
    assert [r.server_round for r in store.results()] == [1, 2, 3]
    assert {p.suffix for p in tmp_path.rglob("*") if p.is_file()} <= {".json", ".safetensors", ""}
    globals_kept = {"none": [2, 3], "last": [2, 3], "all": [1, 2, 3]}[kept]
    assert [int(p.parent.name) for p in sorted(tmp_path.glob("*/global.safetensors"))] == globals_kept
    store.finish()  # the run is complete: nothing is gone on from
    finished = {"none": [], "last": [3], "all": [1, 2, 3]}[kept]
    assert [int(p.parent.name) for p in sorted(tmp_path.glob("*/global.safetensors"))] == finished
    assert store.stored_rounds() == stored


def test_tied_and_transposed_weights_are_stored(tmp_path):
    weight = torch.randn(3, 4)
    state = {"a": weight, "b": weight, "t": weight.T}
    tied = RoundRecord(1, {"3": state, "7": state}, {"3": 0.25, "7": 0.75}, state, state)
    RoundStore(tmp_path, "all").commit(result(), tied)
    assert_close(RoundStore(tmp_path).read(1).global_weights, state)


@pytest.mark.parametrize("kind", ["weights", "updates"])
@pytest.mark.parametrize(("dtype", "error", "size"), [("float32", 1e-6, 4), ("bfloat16", 2**-8, 2)])
def test_clients_are_kept_in_less_space(tmp_path, kind, dtype, error, size):
    whole = record(size=100)
    store = RoundStore(tmp_path, "all", dtype, kind)
    store.commit(result(), whole)
    found = store.read(1)
    for k, weights in whole.clients.items():
        near = weights["w"] - whole.previous_global["w"] if kind == "updates" else weights["w"]
        assert (found.clients[k]["w"] - weights["w"]).abs().max() <= error * near.abs().max()
        assert found.clients[k]["w"].dtype == torch.float32
        assert_close(found.clients[k]["n"], weights["n"], rtol=0, atol=0)
    files = sorted(tmp_path.rglob(f"{kind.removesuffix('s').replace('weight', 'client')}-*.safetensors"))
    assert [path.stat().st_size for path in files] == [pytest.approx(size * 100 * 100, rel=0.02)] * 2
    assert_close(found.global_weights, whole.global_weights, rtol=0, atol=0)


def test_refusals(tmp_path):
    store = RoundStore(tmp_path, "last")
    with pytest.raises(RecordError, match="round 1 has no weights .* none are kept"):
        store.read(1)
    store.commit(result(), record())
    with pytest.raises(RecordError, match="round 2 has no weights .* kept are 1"):
        store.read(2)
    damaged = tmp_path / "0001" / "weights" / "client-7.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:40])
    with pytest.raises(RecordError, match="client-7.safetensors is no whole safetensors file"):
        store.read(1)
    (tmp_path / "0001" / "round.json").write_text('{"row": ')
    with pytest.raises(RecordError, match="round.json is damaged"):
        list(store.results())


WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from tests.helpers.random_rounds import record, result
from tracefl.records.store import RoundStore
store = RoundStore(Path(sys.argv[1]), sys.argv[3])
print("ready", flush=True)
for n in range(1, 1000):
    store.commit(result(n), record(n, size=400))
"""


@pytest.mark.parametrize("kept", ["last", "all"])
def test_a_kill_leaves_whole_rounds(tmp_path, kept):
    """SIGKILL at random moments of writing: whatever is in sight afterwards is whole."""
    draw = random.Random(0)
    root = Path(__file__).resolve().parents[2]
    for attempt in range(5):
        folder = tmp_path / str(attempt)
        writer = subprocess.Popen([sys.executable, "-c", WRITER, folder, root, kept], stdout=subprocess.PIPE, text=True)
        assert writer.stdout.readline() == "ready\n"
        time.sleep(0.05 + draw.random() * 0.4)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        store = RoundStore(folder, kept)
        rounds = [r.server_round for r in store.results()]
        assert rounds == list(range(1, len(rounds) + 1))
        for n in store.stored_rounds():
            assert_close(store.read(n).global_weights, record(n, size=400).global_weights, rtol=0, atol=0)
        store.commit(result(len(rounds) + 1), record(len(rounds) + 1))  # and it can be written on
        assert store.stored_rounds()[-1] == len(rounds) + 1


def test_records_are_json(tmp_path):
    RoundStore(tmp_path).commit(result(), record())
    content = json.loads((tmp_path / "0001" / "round.json").read_text())
    assert content["traced"][0]["ranking"] == [["7", 0.75], ["3", 0.25]]
    assert content["dropped"] == {"9": "a training loss of nan"}


def flip(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("keep", "damaged", "goes_on_from"),
    [
        ("last", [], 4),
        ("last", ["0004/global.safetensors"], 3),
        ("last", ["0004/round.json"], 3),
        ("last", ["0004/weights/client-3.safetensors"], 4),  # not needed to go on
        ("last", ["0004/global.safetensors", "0003/global.safetensors"], 0),  # older ones are not kept
        ("last", ["0002/round.json"], 0),
        ("all", ["0004/global.safetensors", "0003/global.safetensors"], 2),
        ("all", ["0002/round.json"], 1),
        ("none", ["0004/global.safetensors"], 3),
    ],
)
def test_what_is_gone_on_from(tmp_path, caplog, keep, damaged, goes_on_from):
    store = RoundStore(tmp_path, keep)
    for n in (1, 2, 3, 4):
        store.commit(result(n), record(n))
    for name in damaged:
        flip(tmp_path / name)
    assert store.drop_unusable_rounds() == goes_on_from
    assert [r.server_round for r in store.results()] == list(range(1, goes_on_from + 1))
    if goes_on_from:
        assert_close(store.read_global(goes_on_from), dict(record(goes_on_from).global_weights), rtol=0, atol=0)
    named = [name for name in damaged if "client" not in name]
    assert [str(tmp_path / name) in caplog.text for name in named] == [True] * len(named)
    store.commit(result(goes_on_from + 1), record(goes_on_from + 1))
    assert store.drop_unusable_rounds() == goes_on_from + 1


@pytest.mark.parametrize("spoiled", ["weights", float("nan")])
def test_a_round_whose_model_is_not_finite_is_not_gone_on_from(tmp_path, caplog, spoiled):
    """Such as an older version recorded: every honest client would send weights that are not finite from then on."""
    store = RoundStore(tmp_path, "last")
    store.commit(result(1), record(1))
    bad, model = result(2), record(2)
    if spoiled == "weights":
        model.global_weights["w"][1, 1] = torch.nan
    else:
        bad = dataclasses.replace(bad, row={**bad.row, "global_loss": spoiled})
    store.commit(bad, model)
    assert store.drop_unusable_rounds() == 1
    words = (
        "the global model is not finite, first in w"
        if spoiled == "weights"
        else f"the global model's loss is {spoiled}"
    )
    assert f"{tmp_path / '0002'}: {words}; going on from before it" in caplog.messages
    assert store.last_round == 1


def test_sha256sum_agrees(tmp_path):
    RoundStore(tmp_path, "all").commit(result(), record())
    check = ["sha256sum", "--check", "--strict", "SHA256SUMS"]
    assert subprocess.run(check, cwd=tmp_path / "0001", check=False, capture_output=True).returncode == 0
    flip(tmp_path / "0001" / "weights" / "client-7.safetensors")
    assert subprocess.run(check, cwd=tmp_path / "0001", check=False, capture_output=True).returncode == 1


FULL_DISK = """
import resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from tests.helpers.random_rounds import record, result
from tracefl.errors import RecordError
from tracefl.records.store import RoundStore
store = RoundStore(Path(sys.argv[1]), "last")
store.commit(result(1), record(1, size=10))
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))  # as a disk with no room for more
try:
    store.commit(result(2), record(2, size=200))
except RecordError as error:
    print(error.exit_status, error)
"""


def test_a_disk_without_room_costs_only_the_round_in_hand(tmp_path):
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, tmp_path, root], stdout=subprocess.PIPE, text=True, check=True
    )
    assert done.stdout.startswith("1 ")
    assert "cannot be written (" in done.stdout
    assert "earlier rounds stay recorded" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["0001"]  # no half of a round is left
    store = RoundStore(tmp_path, "last")
    assert_close(store.read(1).global_weights, record(1, size=10).global_weights, rtol=0, atol=0)
    store.commit(result(2), record(2, size=200))
    assert store.stored_rounds() == [2]


@pytest.mark.parametrize(("keep", "dtype"), [("none", "float32"), ("last", "float32"), ("all", "bfloat16")])
def test_the_space_it_needs_is_the_most_it_takes(tmp_path, keep, dtype):
    store = RoundStore(tmp_path, keep, dtype)
    sizes = []
    for n in range(1, 5):
        store._write(tmp_path / ".draft", result(n), record(n, size=300))  # what a commit adds before others go
        sizes.append(sum(p.stat().st_size for p in tmp_path.rglob("*.safetensors")))
        store._delete(tmp_path / ".draft")
        store.commit(result(n), record(n, size=300))
    needed = store.bytes_needed(record(1, size=300).global_weights, clients=2, num_rounds=4)
    assert needed == pytest.approx(max(sizes), rel=0.02)


def test_a_round_does_not_make_a_run_s_folder_again_that_was_removed(tmp_path):
    with pytest.raises(RecordError, match="cannot be written"):
        RoundStore(tmp_path / "run" / "rounds", "all").commit(result(), record())
    assert not (tmp_path / "run").exists()


def test_what_is_not_a_round_is_left_alone(tmp_path):
    store = RoundStore(tmp_path, "last")
    for n in (1, 2):
        store.commit(result(n), record(n))
    shutil.copytree(tmp_path / "0002", tmp_path / "0002.bak")
    (tmp_path / "0001" / ".nfs0001").write_text("a file server's")
    assert store.drop_unusable_rounds() == 2
    assert (tmp_path / "0002.bak" / "round.json").exists()


def test_a_disk_that_fails_for_a_moment_deletes_nothing(tmp_path, monkeypatch):
    store = RoundStore(tmp_path, "last")
    for n in (1, 2):
        store.commit(result(n), record(n))
    with monkeypatch.context() as patch:
        patch.setattr(checksums, "sha256_of", lambda _: Path("/dev/null/x").read_bytes())  # NotADirectoryError
        with pytest.raises(OSError):  # noqa: PT011
            store.drop_unusable_rounds()
    assert store.drop_unusable_rounds() == 2


def test_rounds_kept_by_an_earlier_session_stay_whole(tmp_path):
    for n in (1, 2, 3):
        RoundStore(tmp_path, "all").commit(result(n), record(n))
    for n in (4, 5, 6):
        RoundStore(tmp_path, "none").commit(result(n), record(n))
    store = RoundStore(tmp_path)
    assert store.stored_rounds() == [1, 2, 3]
    assert_close(store.read(2).global_weights, record(2).global_weights, rtol=0, atol=0)
