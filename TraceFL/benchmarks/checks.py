"""What an attribution's check costs, and what parameters that no rule covers cost. 10 clients, 20 inputs.

    python TraceFL/benchmarks/checks.py [--threads 1 2] [--repeats 7]

Both are ratios of times taken in turn in one process, medians: with the check to without, and, without check, all
parameters to those of the layers that have a rule.
"""

import argparse
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
import torchvision
from provenance import MODELS, _clients, model_and_inputs
from torch import Tensor, nn

from tracefl.provenance import Compute, attribute
from tracefl.provenance.layers import OPTIONS
from tracefl.provenance.traced import trace

CLIENTS, INPUTS = 10, 20


class Recurrent(nn.Module):
    """An LSTM over 32 steps."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.LSTM(64, 128, batch_first=True), nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of ``(B, 32, 64)`` sequences."""
        return self.head(self.cell(x)[0][:, -1])


def differentiated() -> dict[str, tuple[Callable[[], nn.Module], Tensor]]:
    """Return models with parameters that no rule covers, and inputs."""
    images, tokens = torch.randn(INPUTS, 3, 32, 32), torch.randn(INPUTS, 32, 128)
    found: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
        "torchvision's ViT": (lambda: torchvision.models.VisionTransformer(32, 4, 4, 4, 128, 512), images),
        "torch's TransformerEncoder": (_encoder, tokens),
        "torchvision's ConvNeXt": (lambda: torchvision.models.convnext_tiny(num_classes=10), images),
        "LSTM": (Recurrent, torch.randn(INPUTS, 32, 64)),
    }
    try:
        import timm
    except ImportError:
        return found
    small = {"img_size": 32, "patch_size": 4, "embed_dim": 128, "depth": 4, "num_heads": 4}
    found["timm's ViT"] = (lambda: timm.create_model("vit_tiny_patch16_224", **small), images)
    return found


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", choices=MODELS, default=MODELS)
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    warnings.filterwarnings("ignore", message="not traced")
    sys.stdout.write("| model | threads | unchecked, s | checked, s | ratio |\n|---|---|---|---|---|\n")
    for threads in options.threads:
        torch.set_num_threads(threads)
        for name in options.models:
            model, inputs = model_and_inputs(name, INPUTS)
            row = _ratio(model, inputs, {"check": False}, {"check": True}, options.repeats)
            sys.stdout.write(f"| {name} | {threads} | {row}\n")
            sys.stdout.flush()
    torch.set_num_threads(options.threads[0])
    sys.stdout.write("\n| model | differentiated | by rule alone, s | all, s | ratio |\n|---|---|---|---|---|\n")
    for name, (make, inputs) in differentiated().items():
        torch.manual_seed(0)
        model = make().eval()
        found = trace(model, None, OPTIONS)
        numbers = sum(p.numel() for its in found.differentiated.values() for p in its.values())
        share = numbers / sum(p.numel() for p in model.parameters())
        some = {"check": False, "layers": list(found.layers)}
        row = _ratio(model, inputs, some, {"check": False}, options.repeats)
        sys.stdout.write(f"| {name} | {share:.1%} of the parameters | {row}\n")
        sys.stdout.flush()


def _ratio(model: nn.Module, inputs: Any, first: dict[str, Any], second: dict[str, Any], repeats: int) -> str:
    """Return the cells of two ways' seconds and their ratio."""
    clients = _clients(model, CLIENTS, None, torch.device("cpu"))
    seconds: list[list[float]] = [[], []]
    for turn in range(repeats + 1):
        for way, options in enumerate((first, second)):
            start = time.perf_counter()
            attribute(model, clients, inputs, p=dict.fromkeys(clients, 1 / CLIENTS), compute=Compute(INPUTS), **options)
            if turn:  # the first is not timed
                seconds[way].append(time.perf_counter() - start)
    ratio = statistics.median(b / a for a, b in zip(*seconds, strict=True))
    return f"{statistics.median(seconds[0]):.3f} | {statistics.median(seconds[1]):.3f} | {ratio:.2f} |"


def _encoder() -> nn.Module:
    layer = nn.TransformerEncoderLayer(128, 4, 512, batch_first=True)
    return nn.Sequential(nn.TransformerEncoder(layer, 4), nn.Flatten(), nn.Linear(128 * 32, 10))


if __name__ == "__main__":
    sys.exit(main())
