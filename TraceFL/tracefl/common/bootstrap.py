"""Intervals of means over inputs: a percentile bootstrap (Efron and Tibshirani 1993, chapter 13).

The inputs are drawn again, as many as there are and with replacement, and the mean is taken anew, 1,000 times; between
the 2.5th and the 97.5th percentile of these means lies the 95 % interval. An input that was traced in several rounds is
drawn with all of its values, for they are not independent. The model is taken as given: the interval says what other
inputs would change, not what other training would.
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from tracefl.common.seeds import derive_seed

RESAMPLES = 1000
CONFIDENCE = 0.95
FEWEST = 10
"""Inputs from which on an interval can be relied on. A mean over fewer comes last in a table, and is marked."""

_GROUPS = 512  # computed at once
Key = TypeVar("Key", bound=Hashable)
Values = Sequence[tuple[int, float]]
"""An input and a value of it; an input may have several."""


@dataclass(frozen=True)
class Interval:
    """Where a mean, or a sum, lies with 95 % confidence.

    Attributes:
        low: 2.5th percentile.
        high: 97.5th percentile.
        inputs: Number of different inputs that it is based on.
    """

    low: float
    high: float
    inputs: int

    @property
    def is_settled(self) -> bool:
        """Whether there are enough inputs, and the sign is the same at both ends."""
        return self.inputs >= FEWEST and not self.low <= 0 <= self.high


class Bootstrap:
    """The same draws for every mean, so that means and their differences can be compared.

    Args:
        inputs: The inputs to draw from, in any order, each once or more; at least one.
        seed: The run's root seed.
    """

    def __init__(self, inputs: Iterable[int], seed: int) -> None:
        self._place = {number: place for place, number in enumerate(sorted(set(inputs)))}
        count = len(self._place)
        generator = torch.Generator().manual_seed(derive_seed(seed, "bootstrap"))
        drawn = torch.randint(count, (RESAMPLES, count), generator=generator)
        times = torch.zeros(RESAMPLES, count, dtype=torch.float64)  # how often each input is drawn
        self._times = times.scatter_add_(1, drawn, torch.ones_like(drawn, dtype=torch.float64))

    def draws(self, groups: Sequence[Values]) -> tuple[Tensor, Tensor]:
        """Return the sums and the numbers of values of each group in every draw, both ``(RESAMPLES, len(groups))``."""
        sums = torch.zeros(len(self._place), len(groups), dtype=torch.float64)
        counts = torch.zeros_like(sums)
        for column, values in enumerate(groups):
            if values:
                places = torch.tensor([self._place[number] for number, _ in values])
                found = torch.tensor([value for _, value in values], dtype=torch.float64)
                sums[:, column].index_add_(0, places, found)
                counts[:, column].index_add_(0, places, torch.ones_like(found))
        return self._times @ sums, self._times @ counts

    def by_key(self, groups: Mapping[Key, Values], *, sums: bool = False) -> dict[Key, Interval | None]:
        """Return the interval of each group's mean; None for fewer than two inputs, or values that are not finite.

        Args:
            groups: The values of each group, by any key.
            sums: The interval of each group's sum instead.
        """
        found: dict[Key, Interval | None] = {}
        keys = list(groups)
        for begin in range(0, len(keys), _GROUPS):
            some = keys[begin : begin + _GROUPS]
            totals, counts = self.draws([groups[key] for key in some])
            drawn = totals if sums else totals / counts
            found |= {key: interval(drawn[:, column], groups[key]) for column, key in enumerate(some)}
        return found


def interval(drawn: Tensor, values: Values) -> Interval | None:
    """Return the interval of a number of ``values`` that was computed for every draw.

    Args:
        drawn: ``(RESAMPLES,)``; NaN for a draw without any of the values.
        values: What it was computed of.
    """
    inputs = len({number for number, _ in values})
    known = drawn[~drawn.isnan()]
    if inputs < 2 or not torch.tensor([value for _, value in values]).isfinite().all():
        return None
    tail = (1 - CONFIDENCE) / 2
    low, high = known.quantile(torch.tensor([tail, 1 - tail], dtype=known.dtype)).tolist()
    return Interval(low, high, inputs)


def ends(name: str, found: Interval | None) -> dict[str, float | None]:
    """Return an interval's ends as two columns, both None where there is none."""
    return {f"{name}_low": None if found is None else found.low, f"{name}_high": None if found is None else found.high}
