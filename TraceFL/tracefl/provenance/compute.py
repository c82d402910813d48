"""Where provenance is computed and how much it may hold at once."""

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import torch

Precision: TypeAlias = Literal["float32", "bf16"]


@dataclass(frozen=True)
class Compute:
    """Where to compute, and within which bounds. Only ``precision`` changes a result beyond rounding.

    Attributes:
        batch_size: Most inputs in one forward, at least 1; None for 32 where a backward follows, 256 where none does.
        memory_budget: Bytes beyond the model that an attribution may hold at once; it takes fewer inputs at a time
            where their activations need more. One input's activations are the least. Exact removals are not counted.
        precision: Of large products' factors: ``"float32"`` (or the model's, where that is more), or ``"bf16"`` with
            sums in float32, which tensor cores are made for. Forward and backward keep the model's own precision.
        device: None for where the model is.

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
        """Inputs in one forward whose activations are kept for a backward."""
        return self.batch_size or 32

    @property
    def forward_batch_size(self) -> int:
        """Inputs in one forward that keeps nothing."""
        return self.batch_size or 256
