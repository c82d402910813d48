"""What an attribution says: a contribution and a score for every input and client."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from tracefl.provenance.record import ClientId

ROUNDING = 1e-5
"""Exact effects up to here, in logits, are float32's rounding: the prediction is as sure without the client."""


def nobody_carries(effects: Tensor) -> Tensor:
    """Return ``(B,)`` bool: whether no removal lowers the predicted class's centered logit, beyond ``ROUNDING``.

    Args:
        effects: ``(B, K)`` effects of all K clients, in logits: exact, at least the largest.
    """
    return (effects <= ROUNDING).all(dim=1)


def out_of_order(effects: Sequence[float | None]) -> tuple[bool, ...]:
    """Return of each ranked client whether its exact effect contradicts its place: one after it has a larger effect.

    Args:
        effects: The clients' exact effects by rank, in logits; None where one is not known.
    """
    found = []
    largest = -math.inf  # of those after it
    for effect in reversed(effects):
        found.append(effect is not None and largest > effect + ROUNDING)
        largest = max(largest, -math.inf if effect is None else effect)
    return tuple(reversed(found))


@dataclass(frozen=True)
class Attribution:
    """The clients' parts in the global model's predictions for B inputs, K clients.

    Attributes:
        client_ids: The K clients, in the order of the columns below.
        contributions: ``(B, K)`` T_k in units of the target (logits), on the CPU; float64 for a float64 model, else
            float32. ``(B, K, C)`` where all classes were the target.
        scores: Softmax of the contributions over the clients (Gill et al. 2025, Eq. 7), in the same shape; they sum to
            1 over the clients.
        predicted: ``(B,)`` int64 class that the global model predicts, on the CPU.
        layers: Names of the L traced layers, in the order of ``named_modules()``; empty unless requested.
        by_layer: ``(B, K, L)``, or ``(B, K, C, L)``: what each layer adds to the contributions, its decay and the
            client's weight included, so that the sum over layers is ``contributions``. 0 for a layer that the
            prediction does not pass through. None unless requested.
        verified: ``(B, K)`` bool: whether the contribution is the effect of the client's exact removal
            (verification.py), not an estimate. None where nobody was checked.
        prevented: Clients that could not be checked because the model without them gives logits that are not finite,
            each with the client that makes them so; None where it is none alone.
        doubt: Why all clients were left out exactly though the method asks for fewer; empty where they were not.
    """

    client_ids: tuple[ClientId, ...]
    contributions: Tensor
    scores: Tensor
    predicted: Tensor
    layers: tuple[str, ...] = ()
    by_layer: Tensor | None = None
    verified: Tensor | None = None
    prevented: Mapping[ClientId, ClientId | None] = field(default_factory=dict)
    doubt: str = ""

    def of_class(self, classes: int | Tensor) -> "Attribution":
        """Return the ``(B, K)`` attribution of one class, or of one per input; all classes must have been the target.

        Args:
            classes: A class, or ``(B,)`` classes.

        Raises:
            ValueError: Only one target was attributed.
        """
        if self.contributions.ndim != 3:
            raise ValueError('one target was attributed, not all classes: call attribute(target="all")')
        wanted = torch.as_tensor(classes).expand(len(self.predicted)).view(-1, 1, 1)
        pick = wanted.expand(-1, len(self.client_ids), 1)
        return replace(
            self,
            contributions=self.contributions.gather(2, pick).squeeze(2),
            scores=self.scores.gather(2, pick).squeeze(2),
            by_layer=None if self.by_layer is None else self.by_layer[torch.arange(len(wanted)), :, wanted.flatten()],
        )

    @property
    def responsible(self) -> tuple[ClientId | None, ...]:
        """The client that carries each prediction, the one with the highest contribution; None where nobody does.

        Nobody carries a prediction that is as sure without any one client: the highest contribution is an exact effect,
        and not positive beyond ``ROUNDING``; clients that were not left out are estimated to be below it. With all
        classes as target, of the predicted one.
        """
        if self.contributions.ndim == 3:
            return self.of_class(self.predicted).responsible
        first = self.contributions.argmax(dim=1)
        ids = [self.client_ids[k] for k in first.tolist()]
        if self.verified is None:
            return tuple(ids)
        exact = self.verified.gather(1, first.unsqueeze(1)).squeeze(1)
        nobody = exact & nobody_carries(self.contributions)
        return tuple(None if none else k for k, none in zip(ids, nobody.tolist(), strict=True))

    def ranking(self, i: int) -> tuple[tuple[ClientId, float], ...]:
        """Return (client id, score) for input ``i``, highest first; with all classes as target, for the predicted one.

        Contributions decide the order: scores that lie far apart round to 0 and 1 and no longer tell clients apart.
        """
        if self.contributions.ndim == 3:
            return self.of_class(self.predicted).ranking(i)
        return tuple((self.client_ids[k], float(self.scores[i, k])) for k in self._order(i))

    def ranked_contributions(self, i: int) -> tuple[tuple[ClientId, float], ...]:
        """Return (client id, contribution) for input ``i``, highest first; with all classes, for the predicted one."""
        if self.contributions.ndim == 3:
            return self.of_class(self.predicted).ranked_contributions(i)
        return tuple((self.client_ids[k], float(self.contributions[i, k])) for k in self._order(i))

    def verified_clients(self, i: int) -> tuple[ClientId, ...]:
        """Return the clients whose contribution to input ``i`` comes from their exact removal, highest first."""
        if self.verified is None:
            return ()
        return tuple(self.client_ids[k] for k in self._order(i) if self.verified[i, k])

    def _order(self, i: int) -> list[int]:
        """Return the columns of a ``(B, K)`` attribution, ordered by contribution to input ``i``, highest first."""
        order: list[int] = self.contributions[i].argsort(descending=True, stable=True).tolist()
        return order
