"""Labelled examples as compact tensors, turned into model inputs one batch at a time.

Images are kept as bytes and normalised per batch; token ids are kept as 32-bit integers. A data set is thus decoded and
transformed only once, and images take a quarter of the memory that floats would.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from tracefl.provenance.inputs import Inputs

PIXELS = "pixels"


@dataclass(frozen=True)
class Examples:
    """N labelled examples.

    Attributes:
        features: Either ``{"pixels": (N, C, H, W) uint8}`` or token tensors keyed by the name of the model's argument,
            ``{"input_ids": (N, T) int32, "attention_mask": (N, T) int32}``.
        labels: ``(N,)`` int64 classes.
        rows: ``(N,)`` int64 row numbers of the examples in the data set's split.
        mean: One mean per channel, of pixels scaled to 0..1. Empty for text.
        std: One standard deviation per channel. Empty for text.
    """

    features: dict[str, Tensor]
    labels: Tensor
    rows: Tensor
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, index: Tensor, device: torch.device | str = "cpu") -> tuple[Inputs, Tensor]:
        """Return model inputs and ``(B,)`` labels of the examples at ``index``, on ``device``."""
        chosen = {name: tensor[index].to(device) for name, tensor in self.features.items()}
        labels = self.labels[index].to(device)
        if PIXELS not in chosen:
            return {name: tensor.long() for name, tensor in chosen.items()}, labels
        mean = torch.tensor(self.mean, device=device).view(-1, 1, 1)
        std = torch.tensor(self.std, device=device).view(-1, 1, 1)
        return (chosen[PIXELS].float() / 255 - mean) / std, labels  # (B, C, H, W)

    def label_counts(self, num_classes: int) -> Tensor:
        """Return the number of examples of each class, ``(num_classes,)`` int64."""
        return torch.bincount(self.labels, minlength=num_classes)
