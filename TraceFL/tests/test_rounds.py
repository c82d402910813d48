import dataclasses
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from tracefl.errors import RecordError
from tracefl.provenance import RoundRecord, TracedInput
from tracefl.rounds import RoundResult, RoundStore

TRACED = TracedInput(4, 1, 1, "7", ("3", "7"), True, 0.75, (("7", 0.75), ("3", 0.25)), 1.0, True, "7", 1.0)


def record(server_round=1, size=3):
    generator = torch.Generator().manual_seed(server_round)

    def state():
        return {"w": torch.randn(size, size, generator=generator), "n": torch.tensor(5)}

    return RoundRecord(server_round, {"3": state(), "7": state()}, {"3": 0.25, "7": 0.75}, state(), state())


def result(server_round=1):
    return RoundResult(
        {"round": server_round, "global_accuracy": 0.5}, (TRACED,), {"3": 0.25, "7": 0.75}, {"9": "died"}
    )


def test_a_round_reads_back_as_it_was(tmp_path):
    store = RoundStore(tmp_path, "all")
    store.commit(result(), record())
    found = store.read(1)
    assert_close(dict(found.clients), dict(record().clients), rtol=0, atol=0)
    assert_close(found.global_weights, record().global_weights, rtol=0, atol=0)
    assert_close(found.previous_global, record().previous_global, rtol=0, atol=0)
    assert found.client_weights == {"3": 0.25, "7": 0.75}
    assert list(store.results()) == [result()]


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
    assert {p.suffix for p in tmp_path.rglob("*") if p.is_file()} <= {".json", ".safetensors"}


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
    with pytest.raises(RecordError, match="client-7.safetensors cannot be read"):
        store.read(1)
    (tmp_path / "0001" / "round.json").write_text('{"row": ')
    with pytest.raises(RecordError, match="round.json is damaged"):
        list(store.results())


WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from tests.test_rounds import record, result
from tracefl.rounds import RoundStore
store = RoundStore(Path(sys.argv[1]), sys.argv[3])
print("ready", flush=True)
for n in range(1, 1000):
    store.commit(result(n), record(n, size=400))
"""


@pytest.mark.parametrize("kept", ["last", "all"])
def test_a_kill_leaves_whole_rounds(tmp_path, kept):
    """SIGKILL at random moments of writing: whatever is in sight afterwards is whole."""
    draw = random.Random(0)
    root = Path(__file__).resolve().parents[1]
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
    assert content["left_out"] == {"9": "died"}
