"""Faults in the weights that a client sends.

Both faults change only the trainable parameters. BatchNorm's statistics are not computed by gradients, and noise could
make a variance negative, which would leave the model undefined rather than worse.
"""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tracefl.learning.examples import Examples
from tracefl.provenance.inputs import forward


@torch.no_grad()
def add_update_noise(model: nn.Module, start: Mapping[str, Tensor], scale: float, seed: int) -> None:
    """Add Gaussian noise to a trained model's update, in place.

    Args:
        model: Holds the client's weights after training; buffers stay as they are.
        start: State dict that the client started from, on the CPU.
        scale: Standard deviation of a tensor's noise, as a multiple of the root mean square of that tensor's update.
        seed: Determines the noise.
    """

    def deviation(name: str, parameter: Tensor) -> Tensor:
        return scale * _root_mean_square(parameter - start[name].to(parameter.device))

    _add_noise(model, deviation, seed)


def ride_free(
    model: nn.Module, examples: Examples, batch_size: int, scale: float, seed: int, device: torch.device | str = "cpu"
) -> float:
    """Disguise untouched global weights with a little noise, in place, instead of training.

    Based on the disguised free-rider of Fraboni, Vidal and Lorenzi (2021), with the same noise in every round. The
    buffers remain those of the global model.

    Args:
        model: Holds the round's global weights, on any device.
        examples: The client's examples.
        batch_size: Number of examples to measure the loss on.
        scale: Standard deviation of a tensor's noise, as a multiple of the root mean square of its weights.
        seed: Determines the noise and the batch.
        device: Where to compute; the model stays there.

    Returns:
        A training loss to report, in nats: that of the global model on one random batch of the client's examples. An
        honest client could have measured it in its first step, so the mean over the clients keeps its meaning, at the
        cost of one forward pass.
    """
    model.to(device).eval()
    index = torch.randperm(len(examples), generator=torch.Generator().manual_seed(seed))[:batch_size]
    with torch.no_grad():
        inputs, labels = examples.batch(index, device)
        loss = float(F.cross_entropy(forward(model, inputs).float(), labels))
        _add_noise(model, lambda _, parameter: scale * _root_mean_square(parameter), seed)
    return loss


def _add_noise(model: nn.Module, deviation: Callable[[str, Tensor], Tensor], seed: int) -> None:
    """Add noise to every trainable parameter, drawn on the CPU so that it is the same for every device."""
    draw = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            noise = torch.randn(parameter.shape, generator=draw).to(parameter)
            parameter.add_(deviation(name, parameter) * noise)


def _root_mean_square(tensor: Tensor) -> Tensor:
    return tensor.square().mean().sqrt()
