"""Where provenance is computed and how much it may hold at once."""

from dataclasses import dataclass
from typing import get_args

import torch

from tracefl.provenance.options import Precision


@dataclass(frozen=True)
class Compute:
    """Where to compute, and within which bounds. Only ``precision`` changes a result beyond rounding.

    Attributes:
        batch_size: Maximum inputs in one forward pass, at least 1; None for 32 with a backward pass and 256 without.
        memory_budget: Bytes that an attribution may hold at once beyond the model. Where activations need more, fewer
            inputs are taken at a time, but at least one. Exact removals are not counted.
        precision: Precision of the factors of large products: ``"float32"`` (or the model's, if higher), or ``"bf16"``
            with sums in float32, which tensor cores are made for. The forward and backward passes keep the model's own
            precision.
        device: Where to compute; None for the model's own device.

    Raises:
        ValueError: A value is out of range.
    """

    batch_size: int | None = None
    memory_budget: int = 2 * 2**30
    precision: Precision = "float32"
    device: torch.device | str | None = None

    def __post_init__(self) -> None:
        if self.batch_size is not None and self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {self.batch_size}")
        if self.memory_budget < 1:
            raise ValueError(f"memory_budget must be at least 1 byte, got {self.memory_budget}")
        if self.precision not in get_args(Precision):
            raise ValueError(f"precision must be one of {', '.join(get_args(Precision))}, got {self.precision!r}")

    @property
    def backward_batch_size(self) -> int:
        """Inputs in one forward pass whose activations are kept for a backward pass."""
        return self.batch_size or 32

    @property
    def forward_batch_size(self) -> int:
        """Inputs in one forward pass that keeps no activations."""
        return self.batch_size or 256
