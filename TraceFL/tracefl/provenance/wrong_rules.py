"""Which layers' rules do not hold in a model: each compared with differentiation, where an attribution's check failed.

A layer that is hooked, patched or parametrized may do something else than its kind does. Its rule then gives an input
another gradient than automatic differentiation does.
"""

import torch
from torch import Tensor, nn

from tracefl.provenance.backward import gradients, pieces, products
from tracefl.provenance.capture import run_forward
from tracefl.provenance.checks import Alone
from tracefl.provenance.inputs import Batch
from tracefl.provenance.sources import Clients
from tracefl.provenance.targets import Target, target_values
from tracefl.provenance.traced import Traced

_DIRECTIONS = 4  # in which a layer's rule is compared with its derivative
_WRONG = 1e-3  # of a gradient's norm


@torch.enable_grad()
def wrong_rules(
    model: nn.Module,
    batch: Batch,
    i: int,
    target: Target,
    column: int,
    alone: Alone,
    traced: Traced,
    device: torch.device,
) -> set[str]:
    """Return the layers whose rule gives an input another gradient than differentiation does.

    Args:
        model: Frozen, on ``device``.
        batch: The inputs; where they cannot be taken apart, no layer is found.
        i: Which of them.
        target: What is attributed; where it is classes, those of this input, ``(1,)``.
        column: Which of the input's targets.
        alone: The input, run alone and differentiated by that target.
        traced: What is traced.
        device: Where the model is.

    Returns:
        Names of layers. Takes one forward and one backward pass of the input.
    """
    if batch.whole or not traced.layers:
        return set()
    logits, calls = run_forward(model, batch.part(i, i + 1, device), 1, traced.layers)
    values = target_values(logits, target)[:, column : column + 1]
    named = pieces(gradients(values, calls, keep=False), calls, traced.layers, dict.fromkeys(calls, 1.0), single=True)
    tensors = {name: its for name, its in traced.tensors().items() if name in traced.layers}
    directions = _directions(tensors)
    center = {full: torch.zeros_like(t) for full, t in directions["0"].items()}
    staged = Clients(directions, center, None, None, {}, device)
    staged.check({full: tuple(t.shape) for full, t in center.items()})
    found = products(named, staged, None, tuple(tensors), (1, 1))[0, 0]  # (directions, L)
    wrong = set()
    for place, name in enumerate(tensors):
        its = alone.gradients.get(name, {})
        size = sum(float(g.norm()) ** 2 for g in its.values()) ** 0.5
        for d, direction in enumerate(directions.values()):
            there = {full: g.to(direction[full]) for full, g in its.items() if full in direction}
            expected = sum(float((g * direction[full]).sum()) for full, g in there.items())
            if abs(float(found[d, place]) - expected) > _WRONG * max(size, abs(float(found[d, place]))):
                wrong.add(name)
    return wrong


def _directions(tensors: dict[str, dict[str, Tensor]]) -> dict[str, dict[str, Tensor]]:
    """Draw directions in which the tensors of layers are moved, in float32 at least; the same in each call."""
    draw = torch.Generator().manual_seed(1)
    return {
        str(d): {
            full: torch.randn(t.shape, generator=draw).to(t.device, torch.promote_types(t.dtype, torch.float32))
            for its in tensors.values()
            for full, t in its.items()
        }
        for d in range(_DIRECTIONS)
    }
