"""Faults in the weights that a client sends.

Both touch the trained parameters alone. BatchNorm's statistics are no part of an update that a client computes by
gradients, and noise could make a variance negative: the model would then not be worse but undefined.
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
        seed: Of the noise.
    """

    def deviation(name: str, parameter: Tensor) -> Tensor:
        return scale * _root_mean_square(parameter - start[name].to(parameter.device))

    _add_noise(model, deviation, seed)


def ride_free(
    model: nn.Module, examples: Examples, batch_size: int, scale: float, seed: int, device: torch.device | str = "cpu"
) -> float:
    """Disguise untouched global weights with a little noise, in place, instead of training.

    After the disguised free-rider of Fraboni, Vidal and Lorenzi (2021), with the same noise in every round.
    The buffers are those of the global model.

    Args:
        model: Holds the round's global weights, on any device.
        examples: The client's.
        batch_size: Examples that the loss is measured on.
        scale: Standard deviation of a tensor's noise, as a multiple of the root mean square of its weights.
        seed: Of the noise and of the batch.
        device: Where to compute; the model stays there.

    Returns:
        A training loss to report: the global model's on one random batch of the client's own examples, in nats. It is
        what an honest client's first step could have seen, so the mean over the clients means what it did, and it costs
        one forward of a batch.
    """
    model.to(device).eval()
    index = torch.randperm(len(examples), generator=torch.Generator().manual_seed(seed))[:batch_size]
    with torch.no_grad():
        inputs, labels = examples.batch(index, device)
        loss = float(F.cross_entropy(forward(model, inputs).float(), labels))
        _add_noise(model, lambda _, parameter: scale * _root_mean_square(parameter), seed)
    return loss


def _add_noise(model: nn.Module, deviation: Callable[[str, Tensor], Tensor], seed: int) -> None:
    """Add noise to every trained parameter, drawn on the CPU so that it is the same on every device."""
    draw = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            noise = torch.randn(parameter.shape, generator=draw).to(parameter)
            parameter.add_(deviation(name, parameter) * noise)


def _root_mean_square(tensor: Tensor) -> Tensor:
    return tensor.square().mean().sqrt()
