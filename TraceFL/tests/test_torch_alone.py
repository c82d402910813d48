"""The engine, the training loop and the rules beside the engine import torch alone."""

import subprocess
import sys

CODE = """
import sys
for name in (
    "flwr", "ray", "hydra", "omegaconf", "wandb", "datasets", "flwr_datasets", "medmnist", "sklearn", "scipy",
    "matplotlib", "rich", "opacus", "safetensors", "tokenizers", "transformers", "torchvision", "PIL",
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
print(RULES["most_examples"](Evidence(record, model, torch.ones(1, 2), torch.tensor([0]), seed=0)).tolist())
"""


def test_imports_torch_alone():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["('a',)", "[0.75, 0.25]"]
