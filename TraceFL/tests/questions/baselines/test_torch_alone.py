"""The rules import torch alone, as the engine does."""

import subprocess
import sys

from tests.test_torch_alone import ABSENT


def test_imports_torch_alone():
    code = f"""
import sys
for name in {ABSENT!r}:
    sys.modules[name] = None  # any import of it raises
import torch
from tracefl.questions.baselines import RULES, Evidence
from tracefl.provenance import RoundRecord
model = torch.nn.Sequential(torch.nn.Linear(2, 2))
state = model.state_dict()
record = RoundRecord(1, {{"a": state, "b": state}}, {{"a": 0.75, "b": 0.25}}, state, state)
evidence = Evidence(record, model, torch.ones(1, 2), torch.tensor([0]), seed=0)
print(RULES["most_examples"](evidence).tolist())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[0.75, 0.25]"
