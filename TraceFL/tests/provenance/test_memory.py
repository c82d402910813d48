"""What an attribution holds at most, measured by the system, in a process of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

MEASURE = """
import ctypes, gc, sys, torch
from pathlib import Path
from safetensors.torch import save_file
from torch import nn
from tests.helpers.formula import attribute
from tracefl.provenance import Compute

torch.set_num_threads(1)
torch.manual_seed(0)
folder, *budgets = Path(sys.argv[1]), *map(int, sys.argv[2:])
layers = [nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.ReLU()]
model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(16), nn.Flatten(), nn.Linear(8192, 128), nn.Linear(128, 4))
inputs = torch.randn(64, 3, 96, 96)
paths = {str(k): folder / f"{k}.safetensors" for k in range(60)}  # of 4 MiB each
for path in paths.values():
    save_file({n: w + 0.01 * torch.randn_like(w) for n, w in model.state_dict().items()}, path)
attribute(model, {"0": paths["0"]}, inputs[:1])  # what torch itself needs once

def held(what):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(what)) * 1024

for budget in budgets:
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # free memory that the process still holds would hide what is taken from here on
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from what is held now
    before = held("VmRSS")
    attribute(model, paths, inputs, compute=Compute(64, budget))
    print(held("VmHWM") - before)
"""


def peaks(folder, *budgets):
    """Bytes that an attribution under each budget takes beyond what the process held before it."""
    command = [sys.executable, "-c", MEASURE, str(folder), *map(str, budgets)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return map(int, done.stdout.split())


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's count of a process's memory")
def test_the_memory_budget_is_kept(tmp_path):
    """64 inputs need five times the budget at once, and 60 clients more than it; neither is ever held whole."""
    budget = 192 * 2**20
    within, without = peaks(tmp_path, budget, 2**40)
    assert without > 4 * budget
    assert within < budget
