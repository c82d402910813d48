"""The clients of a stored round are read one at a time, and none is kept."""

import gc
import subprocess
import sys
import weakref
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from tests.helpers.tables import whole_row
from tracefl.errors import RecordError
from tracefl.provenance import RoundRecord
from tracefl.records.checksums import CheckedFiles, write_checksums
from tracefl.records.result import RoundResult
from tracefl.records.store import RoundStore
from tracefl.records.weights import read_weights, save_weights

P = {"3": 0.25, "7": 0.75}


def record():
    torch.manual_seed(0)
    state = {"w": torch.randn(4, 3), "n": torch.tensor(5)}
    clients = {k: {"w": torch.randn(4, 3), "n": torch.tensor(int(k))} for k in P}
    return RoundRecord(1, clients, P, state, state)


def stored(folder, **kept):
    store = RoundStore(folder, "all", **kept)
    store.commit(RoundResult(whole_row(round=1), (), (), P, {}), record())
    return store.read(1)


@pytest.mark.parametrize("kind", ["weights", "updates"])
def test_a_client_is_read_when_it_is_asked_for_and_not_kept(tmp_path, kind):
    found = stored(tmp_path, kind=kind)
    assert (tuple(found.clients), len(found.clients), "7" in found.clients) == (("3", "7"), 2, True)
    first = found.clients["7"]
    assert_close(first, record().clients["7"], rtol=0, atol=1e-6)
    held = weakref.ref(first["w"])
    del first
    gc.collect()
    assert held() is None
    for client_id, weights in found.clients.items():
        assert_close(weights, record().clients[client_id], rtol=0, atol=1e-6)
        weights["w"].zero_()  # the reader's own: the file is as it was
    assert_close(found.clients["7"], record().clients["7"], rtol=0, atol=1e-6)


def test_who_took_no_part_and_files_that_are_gone(tmp_path):
    found = stored(tmp_path)
    assert "4" not in found.clients
    with pytest.raises(KeyError, match="4"):
        found.clients["4"]
    (tmp_path / "0001" / "weights" / "client-7.safetensors").unlink()
    with pytest.raises(RecordError, match="client-7.safetensors cannot be read"):
        found.clients["7"]


MEASURE = """
import ctypes, gc, sys, torch
from pathlib import Path
from torch import nn
from tracefl.provenance import RoundRecord, counterfactuals, sampled_shapley
from tracefl.records.result import RoundResult
from tracefl.records.store import RoundStore
from tracefl.records.tables import ROUND_COLUMNS

torch.set_num_threads(1)
torch.manual_seed(0)
folder, kind, dtype = Path(sys.argv[1]), *sys.argv[2:]
count = 44
model = nn.Sequential(nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 4))  # 4 MiB
state = model.state_dict()
p = {str(k): 1 / count for k in range(count)}
store = RoundStore(folder, "all", dtype, kind)

def made(k):
    noise = torch.Generator().manual_seed(int(k))
    return {n: w + 0.01 * torch.randn(w.shape, generator=noise) for n, w in state.items()}

class Made(dict):
    def items(self):
        return ((k, made(k)) for k in p)

average = {n: torch.zeros_like(w) for n, w in state.items()}
for k in p:
    for n, w in made(k).items():
        average[n] += w / count
result = RoundResult(dict.fromkeys(ROUND_COLUMNS) | {"round": 1}, (), (), p, {})
store.commit(result, RoundRecord(1, Made(p), p, state, average))
inputs = torch.randn(8, 1024)
found = counterfactuals(model, store.read(1), inputs)  # what torch itself needs once

def held(what):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(what)) * 1024

def peak(at_once):
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # free memory that the process still holds would hide what is taken from here on
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from what is held now
    before = held("VmRSS")
    record = store.read(1)
    if at_once:
        everyone = {k: {n: w.clone() for n, w in weights.items()} for k, weights in record.clients.items()}
    counterfactuals(model, record, inputs)
    sampled_shapley(model, record, inputs, found.predicted, 4, 0)
    return held("VmHWM") - before

# Pages of files that are read, and what the allocator keeps, only ever add to a peak: the least of three counts.
print(min(peak(at_once=False) for _ in range(3)), peak(at_once=True))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's count of a process's memory")
@pytest.mark.parametrize(("kind", "dtype"), [("weights", "float32"), ("updates", "bfloat16")])
def test_memory_does_not_grow_with_the_clients(tmp_path, kind, dtype):
    """44 clients of 4 MiB; the removals and the orders of Shapley need about five models and two clients."""

    command = [sys.executable, "-c", MEASURE, str(tmp_path), kind, dtype]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    one_by_one, at_once = map(int, done.stdout.split())
    assert at_once > 160 * 2**20
    assert one_by_one < 64 * 2**20


def test_what_was_checked_is_what_is_read_whatever_takes_its_place(tmp_path, monkeypatch):
    save_weights(tmp_path / "a.safetensors", {"w": torch.ones(2)})
    save_weights(tmp_path / "other", {"w": torch.zeros(2)})
    write_checksums(tmp_path)
    files, check = CheckedFiles(tmp_path, "round"), CheckedFiles.check_opened

    def then_it_is_replaced(*arguments):
        check(*arguments)
        (tmp_path / "other").replace(tmp_path / "a.safetensors")

    monkeypatch.setattr(CheckedFiles, "check_opened", then_it_is_replaced)
    assert read_weights(files, "a.safetensors")["w"].tolist() == [1, 1]
    monkeypatch.undo()
    with pytest.raises(RecordError, match="a.safetensors is damaged: its checksum"):
        read_weights(files, "a.safetensors")
