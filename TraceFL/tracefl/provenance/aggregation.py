"""Robust rules by which a server makes one model of its clients', and makes it again without some of them.

They make what Flower's strategies ``Krum``, ``MultiKrum``, ``Bulyan``, ``FedTrimmedAvg`` and ``FedMedian`` make, of a
round's floating-point weights and buffers, in float64. Where clients tie, as two do that are each other's nearest, the
first one is taken, where Flower's choice is left to rounding: the same rule has to make the round, and make it again to
answer.

None of them is a sum of what the clients sent, so no part of the model is a client's own, and no first-order effect is
defined: what can be told exactly is what the rule would have made of the others.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from tracefl.errors import RecordError

Rule: TypeAlias = Literal["krum", "bulyan", "trimmed_mean", "median"]

_TIED = 1e-9  # relative difference up to which the scores of two clients are the same but for rounding


@dataclass(frozen=True)
class Aggregation:
    """A robust rule.

    Attributes:
        rule: ``"krum"`` averages the ``selected`` clients that lie closest to their neighbours, weighted by their
            shares (Blanchard et al. 2017, Multi-Krum where there are several); ``"bulyan"`` chooses all but 2 f of them
            in the same way and averages, entry by entry, all but 2 f of these, those closest to their median (El
            Mhamdi et al. 2018, with one choice in place of a repeated one, as Flower has it); ``"trimmed_mean"`` leaves
            out the smallest and the largest values of each entry, and ``"median"`` all but the middle (Yin et al.
            2018).
        malicious: f, the number of clients that may be malicious, for Krum and Bulyan.
        selected: How many clients Krum averages.
        cut: Fraction in [0, 0.5) of the values that a trimmed mean leaves out at each end, rounded down to whole ones.

    Raises:
        ValueError: A number is out of its range.
    """

    rule: Rule
    malicious: int = 0
    selected: int = 1
    cut: float = 0.0

    def __post_init__(self) -> None:
        if self.rule not in ("krum", "bulyan", "trimmed_mean", "median"):
            raise ValueError(f"rule must be krum, bulyan, trimmed_mean or median, got {self.rule!r}")
        if self.malicious < 0 or self.selected < 1 or not 0 <= self.cut < 0.5:
            raise ValueError(
                f"malicious must be at least 0, selected at least 1 and cut in [0, 0.5), got {self.malicious}, "
                f"{self.selected} and {self.cut}"
            )

    @property
    def fewest(self) -> int:
        """The fewest clients of which the rule makes a model: of fewer it would keep an attacker in without a word."""
        f = self.malicious
        least = {"bulyan": 4 * f + 3, "krum": max(self.selected, 2 * f + 2)}
        return least.get(self.rule, math.ceil(1 / self.cut) if self.cut else 1)

    def aggregate(
        self,
        clients: Mapping[Any, Mapping[str, Tensor]],
        shares: Mapping[Any, float],
        like: Mapping[str, Tensor],
    ) -> dict[str, Tensor]:
        """Return the clients' model, in float64.

        Args:
            clients: The weights of those that count, all in memory, in the order in which the server took them.
            shares: Their shares of an average, which need not sum to 1. Krum alone weighs by them.
            like: The tensors wanted, by name.

        Raises:
            RecordError: They are fewer than ``fewest``.
        """
        return {name: mean_of(values, weights) for name, values, weights in self.kept(clients, shares, like)}

    def kept(
        self,
        clients: Mapping[Any, Mapping[str, Tensor]],
        shares: Mapping[Any, float],
        like: Mapping[str, Tensor],
    ) -> Iterator[tuple[str, Tensor, Tensor | None]]:
        """Yield by name what the clients' model is the mean of: ``(K', ...)`` values, and their weights; None for even.

        Arguments and errors are those of ``aggregate``.
        """
        if len(clients) < self.fewest:
            raise RecordError(f"{self.rule} makes a model of at least {self.fewest} clients, got {len(clients)}")
        states, p = list(clients.values()), [shares[client_id] for client_id in clients]
        weights: Tensor | None = None
        if self.rule == "krum":
            chosen = self._closest(states, like, self.selected)
            weights = torch.tensor([p[k] for k in chosen], dtype=torch.float64)
            weights /= weights.sum()
            states = [states[k] for k in chosen]
        if self.rule == "bulyan":
            states = [states[k] for k in self._closest(states, like, len(states) - 2 * self.malicious)]
        for name in like:
            values = _stacked(states, name)
            yield name, values if weights is not None else self._middle(values), weights

    def _closest(self, states: Sequence[Mapping[str, Tensor]], like: Mapping[str, Tensor], count: int) -> list[int]:
        """Return the clients with the smallest sums of squared distances to their nearest others, in order."""
        dots = torch.zeros(len(states), len(states), dtype=torch.float64)
        for name in like:
            values = _stacked(states, name)
            # From the middle: products of what is far from zero, or from a client that is far from all others, would
            # lose the difference of two that are near in their rounding.
            flat = (values - values.median(dim=0).values).reshape(len(states), -1)
            dots += flat @ flat.t()
        norms = dots.diagonal()
        distances = (norms[:, None] + norms[None, :] - (dots + dots.t())).nan_to_num(nan=math.inf).clamp(min=0)
        nearest = max(1, len(states) - self.malicious - 2)
        distances.fill_diagonal_(-1)  # oneself comes first, and is left out
        scores = distances.sort(dim=1).values[:, 1 : nearest + 1].sum(dim=1).tolist()
        chosen: list[int] = []
        while len(chosen) < count:
            rest = [k for k in range(len(states)) if k not in chosen]
            least = min(scores[k] for k in rest)
            chosen.append(next(k for k in rest if scores[k] <= least * (1 + _TIED)))
        return chosen

    def _middle(self, values: Tensor) -> Tensor:
        """Return of each entry the values that are averaged, ``(K', ...)``, from all, ``(K, ...)`` float64."""
        count = len(values)
        ordered = values.sort(dim=0).values
        middle = ordered[[(count - 1) // 2, count // 2]]
        if self.rule == "median":
            return middle
        if self.rule == "trimmed_mean":
            cut = int(self.cut * count)
            return ordered[cut : count - cut]
        kept = count - 2 * self.malicious
        # Rounded weights often lie equally far from their median on both sides: NumPy's choice among them is Flower's.
        nearest = (values - middle.mean(dim=0)).abs().numpy().argpartition(kept - 1, axis=0)[:kept]
        return values.gather(0, torch.as_tensor(nearest))


def mean_of(values: Tensor, weights: Tensor | None) -> Tensor:
    """Return the mean of ``(K', ...)`` values by their ``(K',)`` weights, which sum to 1; None for even ones."""
    return values.mean(dim=0) if weights is None else torch.tensordot(weights, values, 1)


def _stacked(states: Sequence[Mapping[str, Tensor]], name: str) -> Tensor:
    """Return a tensor of each client, ``(K, ...)`` float64 on the CPU."""
    return torch.stack([state[name].detach().cpu().double() for state in states])
