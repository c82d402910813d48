"""What an answer's check costs, and what parameters that no rule covers cost. 20 inputs.

    python TraceFL/benchmarks/checks.py [--threads 1 2] [--repeats 7]

Both are ratios of times taken in turn in one process, medians: with the check to without, for an attribution and for
the default method of a whole round; and, without check, all parameters to those of the layers that have a rule.
"""

import argparse
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torchvision
from provenance import MODELS, _clients, model_and_inputs
from torch import Tensor, nn

from tracefl.provenance import Compute, RoundRecord, attribute, attribute_round
from tracefl.provenance.layers import OPTIONS
from tracefl.provenance.traced import trace

CLIENTS, MANY, INPUTS = 10, 30, 20


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
    sys.stdout.write(
        "| call | model | clients | threads | unchecked, s | checked, s | ratio |\n|---|---|---|---|---|---|---|\n"
    )
    for threads in options.threads:
        torch.set_num_threads(threads)
        for name in options.models:
            model, inputs = model_and_inputs(name, INPUTS)
            for call, clients in (("attribute", CLIENTS), ("attribute_round", CLIENTS), ("attribute_round", MANY)):
                ask = _attribution(model, inputs, clients) if call == "attribute" else _round(model, inputs, clients)
                row = _ratio(ask, {"check": False}, {"check": True}, options.repeats)
                sys.stdout.write(f"| {call} | {name} | {clients} | {threads} | {row}\n")
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
        ask = _attribution(model, inputs, CLIENTS)
        row = _ratio(ask, some, {"check": False}, options.repeats)
        sys.stdout.write(f"| {name} | {share:.1%} of the parameters | {row}\n")
        sys.stdout.flush()


def _attribution(model: nn.Module, inputs: Any, count: int) -> Callable[..., object]:
    """Return a function that estimates all clients' contributions."""
    clients = _clients(model, count, None, torch.device("cpu"))
    shares = dict.fromkeys(clients, 1 / count)
    return partial(attribute, model, clients, inputs, p=shares, compute=Compute(INPUTS))


def _round(model: nn.Module, inputs: Any, count: int) -> Callable[..., object]:
    """Return a function that asks a whole round by the default method."""
    parts = _clients(model, count, None, torch.device("cpu"))
    whole: dict[Any, dict[str, Tensor]] = {k: {**model.state_dict(), **its} for k, its in parts.items()}
    shares = dict.fromkeys(whole, 1 / count)
    average = {
        name: torch.stack([its[name] for its in whole.values()]).mean(dim=0) if tensor.is_floating_point() else tensor
        for name, tensor in model.state_dict().items()
    }
    record = RoundRecord(1, whole, shares, model.state_dict(), average)
    return partial(attribute_round, model, record, inputs)


def _ratio(ask: Callable[..., object], first: dict[str, Any], second: dict[str, Any], repeats: int) -> str:
    """Return the cells of two ways' seconds and their ratio."""
    seconds: list[list[float]] = [[], []]
    for turn in range(repeats + 1):
        for way, options in enumerate((first, second)):
            start = time.perf_counter()
            ask(**options)
            if turn:  # the first is not timed
                seconds[way].append(time.perf_counter() - start)
    ratio = statistics.median(b / a for a, b in zip(*seconds, strict=True))
    return f"{statistics.median(seconds[0]):.3f} | {statistics.median(seconds[1]):.3f} | {ratio:.2f} |"


def _encoder() -> nn.Module:
    layer = nn.TransformerEncoderLayer(128, 4, 512, batch_first=True)
    return nn.Sequential(nn.TransformerEncoder(layer, 4), nn.Flatten(), nn.Linear(128 * 32, 10))


if __name__ == "__main__":
    sys.exit(main())
