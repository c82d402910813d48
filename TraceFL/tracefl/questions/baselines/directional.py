"""How logits change along a client's update: forward-mode derivatives, which hold no gradient of the weights."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp
from torch.nn.attention import SDPBackend, sdpa_kernel

from tracefl.common.warned import reworded
from tracefl.provenance.inputs import Batch, forward
from tracefl.questions.baselines.evidence import NotApplicableError


def logits_along(
    model: nn.Module,
    start: Mapping[str, Tensor],
    sent: Mapping[str, Tensor],
    batch: Batch,
    batch_size: int,
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """Return the logits under ``start``, and their derivatives along the update divided by its length.

    Args:
        model: On ``device``, in evaluation mode.
        start: The weights that the client started from, buffers included.
        sent: The client's weights after training.
        batch: B inputs.
        batch_size: How many of them at a time.
        device: Where the model is.

    Returns:
        Both ``(B, C)`` float64 on ``device``; the derivatives are 0 for an update of zero.

    Raises:
        NotApplicableError: A layer has no forward derivative.
    """
    weights = {n: p for n, p in model.named_parameters() if p.is_floating_point()}  # tied ones once
    primals = {name: start[name].to(device, p.dtype) for name, p in weights.items()}
    update = {name: sent[name].to(device).double() - start[name].to(device).double() for name in weights}
    length = torch.stack([tensor.square().sum() for tensor in update.values()]).sum().sqrt()
    tangents = {n: (tensor / length if length > 0 else tensor).to(primals[n]) for n, tensor in update.items()}
    buffers = {name: start[name].to(device, b.dtype) for name, b in model.named_buffers() if name in start}
    found = []
    for inputs in batch.parts(batch_size, device):

        def logits(parameters: dict[str, Tensor], inputs: Any = inputs) -> Tensor:
            return forward(lambda *a, **k: functional_call(model, {**buffers, **parameters}, a, k), inputs)

        try:
            # The only kernel of attention that has a forward derivative; PyTorch warns of a part of its own.
            with sdpa_kernel(SDPBackend.MATH), reworded(lambda text: None if "torch.jit.script" in text else text):
                found.append(jvp(logits, (primals,), (tangents,)))
        except NotImplementedError as error:
            raise NotApplicableError(f"a layer of this model has no forward derivative: {error}") from error
    values, changes = zip(*found, strict=True)
    return torch.cat(values).double(), torch.cat(changes).double()
