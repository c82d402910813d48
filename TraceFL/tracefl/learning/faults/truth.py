"""The fault that a run injected: the ground truth of localization."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

import torch
from torch import Tensor

from tracefl.errors import RecordError
from tracefl.learning.examples import Examples
from tracefl.learning.faults.trigger import Trigger

EXAMPLE_FAULTS = ("label_flip", "random_labels", "backdoor")
"""Faults in a client's examples."""

WEIGHT_FAULTS = ("weight_noise", "free_rider")
"""Faults in the weights that a client sends."""


@dataclass(frozen=True)
class Fault:
    """A run's fault with everything drawn and resolved; stored in ``fault.json`` in the run's folder.

    Attributes:
        name: A member of ``EXAMPLE_FAULTS`` or ``WEIGHT_FAULTS``.
        clients: Ids of the faulty clients.
        from_round: First faulty round, from 1.
        flips: Label to the label that it was flipped to; only for label_flip, else empty.
        target: A backdoor's target class; None for other faults.
        trigger: A backdoor's trigger; None for other faults.
        share: Fraction of the matching examples that were changed; None for faults in the weights.
        scale: Relative standard deviation of the noise on the weights, see ``faults.updates``; None for
            faults in the examples.
    """

    name: str
    clients: tuple[str, ...]
    from_round: int
    flips: Mapping[int, int] = field(default_factory=dict, hash=False)
    target: int | None = None
    trigger: Trigger | None = None
    share: float | None = None
    scale: float | None = None

    @property
    def in_examples(self) -> bool:
        """Whether the fault is in the clients' examples rather than in their weights."""
        return self.name in EXAMPLE_FAULTS

    def is_active(self, client_id: str, server_round: int) -> bool:
        """Return whether a client is faulty in a round."""
        return client_id in self.clients and server_round >= self.from_round

    def faulty(self, client_ids: Sequence[str], server_round: int) -> Tensor:
        """Return which of K clients are faulty in a round, ``(K,)`` bool; none before ``from_round``."""
        return torch.tensor([self.is_active(client_id, server_round) for client_id in client_ids], dtype=torch.bool)

    def inputs(self, server: Examples) -> Examples:
        """Return the examples on which the fault shows: the server's, with the trigger on them for a backdoor."""
        return server if self.trigger is None else self.trigger.put_on(server)

    def misled(self, labels: Tensor, predicted: Tensor) -> Tensor:
        """Return which inputs are mispredicted in the way that the fault intends.

        Args:
            labels: ``(N,)`` int64 true classes of ``inputs``.
            predicted: ``(N,)`` int64 classes that the model predicts.

        Returns:
            ``(N,)`` bool. For label_flip, predicted as what their label was flipped to; for a backdoor, of another
            class and predicted as the target; for other faults, mispredicted.
        """
        if self.name == "label_flip":
            wanted = torch.full_like(labels, -1)
            for label, becomes in self.flips.items():
                wanted[labels == label] = becomes
            return predicted.eq(wanted)
        if self.target is not None:
            return labels.ne(self.target) & predicted.eq(self.target)
        return predicted.ne(labels)

    def to_json(self) -> str:
        """Return the fault as one line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Fault":
        """Read what ``to_json`` wrote; unknown keys are ignored.

        Raises:
            RecordError: ``text`` does not describe a fault.
        """
        try:
            values = json.loads(text)
            own = {name: values[name] for name in cls.__dataclass_fields__}
            own["clients"] = tuple(map(str, own["clients"]))
            own["flips"] = {int(label): int(becomes) for label, becomes in own["flips"].items()}
            own["trigger"] = None if own["trigger"] is None else Trigger(**own["trigger"])
            if own["name"] not in EXAMPLE_FAULTS + WEIGHT_FAULTS:
                raise ValueError(f"name {own['name']!r}")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise RecordError(f"no description of a fault ({error!r}): {text[:60]!r}") from error
        return cls(**own)
