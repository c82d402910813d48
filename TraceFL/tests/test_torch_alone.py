"""The engine and the training loop import torch alone."""

import subprocess
import sys

import pytest

ABSENT = (
    "flwr", "ray", "hydra", "omegaconf", "wandb", "datasets", "flwr_datasets", "medmnist", "sklearn", "scipy",
    "matplotlib", "rich", "opacus", "safetensors", "tokenizers", "transformers", "torchvision", "PIL",
)  # fmt: skip


@pytest.mark.parametrize(
    "module",
    [
        "tracefl.provenance",
        "tracefl.learning.training",
        "tracefl.learning.faults",
        "tracefl.questions.reaggregation",
        "tracefl.learning.measures",
    ],
)
def test_imports_torch_alone(module):
    code = f"""
import sys
for name in {ABSENT!r}:
    sys.modules[name] = None  # any import of it raises
import torch, {module}
from tracefl.provenance import attribute
model = torch.nn.Sequential(torch.nn.Linear(2, 2))
print(attribute(model, {{"a": model.state_dict()}}, torch.ones(1, 2)).responsible)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "('a',)"
