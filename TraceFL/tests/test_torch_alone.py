"""The engine, the training loop and the rules import torch alone, and leave the importing process as it was."""

import subprocess
import sys

CODE = """
import sys
for name in (
    "flwr", "ray", "hydra", "omegaconf", "wandb", "datasets", "flwr_datasets", "medmnist", "sklearn", "scipy",
    "matplotlib", "pandas", "rich", "opacus", "safetensors", "tokenizers", "transformers", "torchvision", "PIL",
):
    sys.modules[name] = None  # any import of it raises
import torch
import tracefl.learning.training, tracefl.learning.faults, tracefl.learning.measures
import tracefl.questions.reaggregation
from tracefl.provenance import RoundRecord, attribute
from tracefl.questions.baselines import RULES, Evidence
model = torch.nn.Sequential(torch.nn.Linear(2, 2))
state = model.state_dict()
print(attribute(model, {"a": state}, torch.ones(1, 2)).responsible)
record = RoundRecord(1, {"a": state, "b": state}, {"a": 0.75, "b": 0.25}, state, state)
import tracefl
answer = tracefl.who(model, {"a": state, "b": state}, torch.ones(1, 2), sizes=[3, 1])
print(answer.ranked()[0]["weight"], "score" in str(answer), "<table>" in answer._repr_html_())
print(RULES["most_examples"](Evidence(record, model, torch.ones(1, 2), torch.tensor([0]), seed=0)).tolist())
"""


def test_imports_torch_alone():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["('a',)", "0.75 True True", "[0.75, 0.25]"]


def test_importing_the_library_leaves_the_process_as_it_was():
    code = """
import logging, os, signal, torch

def state():
    handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
    default = torch.get_default_dtype(), torch.get_num_threads()
    return dict(os.environ), handlers, list(logging.getLogger().handlers), logging.getLogger().level, default

before = state()
import tracefl.provenance
assert state() == before, f"{before} became {state()}"
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
