"""Injects a fault into the clients' data, on the server side of a simulation, before the first round."""

import json
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from tracefl.common.seeds import derive_seed
from tracefl.errors import DataError
from tracefl.learning.examples import Examples
from tracefl.learning.faults.changes import change_examples, changeable
from tracefl.learning.faults.choice import choose_faulty
from tracefl.learning.faults.settings import AnyFault, Backdoor, FreeRider, LabelFlip, WeightNoise
from tracefl.learning.faults.trigger import Trigger
from tracefl.learning.faults.truth import Fault
from tracefl.learning.faults.words import fault_share

log = logging.getLogger(__name__)

_NAMED = 10  # most flips named in a line


@dataclass(frozen=True)
class Vocabulary:
    """The ids of a text model's tokens.

    Attributes:
        size: Number of ids.
        special: Ids of the special tokens: padding, start and end of a text and the like.
    """

    size: int
    special: Collection[int]


@dataclass(frozen=True)
class ClientChange:
    """What a fault changes on one client.

    Attributes:
        client: The client's id.
        examples: Number of its training examples.
        changeable: Number of examples that the fault can change; all for a fault in the weights.
        changed: Number of examples that the fault changed; 0 for a fault in the weights.
        label_counts: Number of its examples of each class, by true label.
        faulty_label_counts: The same, by the label that it trains on when faulty.
    """

    client: str
    examples: int
    changeable: int
    changed: int
    label_counts: tuple[int, ...]
    faulty_label_counts: tuple[int, ...]


@dataclass(frozen=True)
class InjectedFault:
    """A resolved fault and what it changed.

    Attributes:
        truth: What was injected.
        changes: One entry per faulty client.
        examples: Client id to the examples that it trains on when faulty; empty for a fault in the weights.
    """

    truth: Fault
    changes: tuple[ClientChange, ...]
    examples: dict[str, Examples]

    def describe(self) -> dict[str, Any]:
        """Return the fault and its changes as JSON types; ``Fault.from_json`` accepts their JSON."""
        truth: dict[str, Any] = json.loads(self.truth.to_json())
        return {**truth, "changes": [asdict(change) for change in self.changes]}


def inject(
    settings: AnyFault,
    clients: Mapping[str, Examples],
    num_classes: int,
    vocabulary: Vocabulary | None,
    seed: int,
) -> InjectedFault:
    """Choose the faulty clients and change their examples; logs one line for each client.

    Args:
        settings: The fault.
        clients: Client id to examples, for the clients that take part; left unchanged.
        num_classes: Classes of the data set, at least 2.
        vocabulary: The text model's vocabulary; None for images.
        seed: The run's root seed.

    Raises:
        DataError: A label or token does not exist, or too few clients hold enough examples that the fault can change.
    """
    fault = _resolve(settings, num_classes, vocabulary)
    held = {client: len(changeable(fault, examples.labels)) for client, examples in clients.items()}
    fault = replace(fault, clients=choose_faulty(settings, held, seed))
    changes, faulty = [], {}
    for client in fault.clients:
        before = after = clients[client]
        changed = 0
        if fault.in_examples:
            after, index = change_examples(fault, before, num_classes, derive_seed(seed, "fault", client))
            faulty[client], changed = after, len(index)
        counts = (tuple(examples.label_counts(num_classes).tolist()) for examples in (before, after))
        change = ClientChange(client, len(before), held[client], changed, *counts)
        log.info("fault: client %s from round %d: %s", client, fault.from_round, _words(fault, change))
        changes.append(change)
    return InjectedFault(fault, tuple(changes), faulty)


def _resolve(settings: AnyFault, num_classes: int, vocabulary: Vocabulary | None) -> Fault:
    """Return the fault with its labels and trigger, but without clients.

    Raises:
        DataError: It names a label or a token that does not exist.
    """
    resolved = Fault(settings.name, (), settings.from_round, share=fault_share(settings))
    if isinstance(settings, LabelFlip):
        becomes = settings.all_to or 0
        flips = dict(settings.flip or {label: becomes for label in range(num_classes) if label != becomes})
        _check_classes("all_to" if settings.flip is None else "flip", (*flips, *flips.values()), num_classes)
        return replace(resolved, flips=flips)
    if isinstance(settings, Backdoor):
        _check_classes("target", (settings.target,), num_classes)
        token = None if vocabulary is None else _token(settings.trigger_token, vocabulary)
        trigger = Trigger(size=settings.patch_size) if vocabulary is None else Trigger(token=token)
        return replace(resolved, target=settings.target, trigger=trigger)
    if isinstance(settings, WeightNoise | FreeRider):
        return replace(resolved, scale=settings.scale)
    return resolved


def _check_classes(key: str, labels: Sequence[int], num_classes: int) -> None:
    absent = [label for label in labels if label >= num_classes]
    if absent:
        raise DataError(f"fault.{key} names class {absent[0]}, and the data set has 0 to {num_classes - 1}")


def _token(given: int | None, vocabulary: Vocabulary) -> int:
    if given is None:
        return max(set(range(vocabulary.size)) - set(vocabulary.special))
    if given >= vocabulary.size or given in vocabulary.special:
        raise DataError(
            f"fault.trigger_token={given} is no word of the vocabulary, 0 to {vocabulary.size - 1} without the special "
            f"{', '.join(map(str, sorted(vocabulary.special)))}; name another, or null for its last"
        )
    return given


def _words(fault: Fault, change: ClientChange) -> str:
    of = f"{change.changed} of {change.changeable}"
    if fault.name == "label_flip":
        flips = [f"{label} to {becomes}" for label, becomes in fault.flips.items()]
        named = ", ".join(flips[:_NAMED]) + (", ..." if len(flips) > _NAMED else "")
        return f"labels of {of} matching examples flipped ({named}); it holds {change.examples}"
    if fault.name == "random_labels":
        return f"labels of {of} examples redrawn"
    if fault.name == "backdoor":
        return f"{of} examples of other classes got the trigger and class {fault.target}; it holds {change.examples}"
    if fault.name == "weight_noise":
        return f"noise of {fault.scale:g} times its update's root mean square; it holds {change.examples} examples"
    return f"does not train, sends global weights with noise of {fault.scale:g}; it holds {change.examples} examples"
