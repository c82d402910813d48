"""Why one prediction: who carried it, in which layers, against which other class, and is it so without them.

With s the target of the method, client k's contribution T_k is what ``attribute_round`` gives, and its parts by layer
sum up to it. Why class c and not class d is asked of the difference of their logits: T_k(c) - T_k(d), with the method's
own weighting, reference and layers. The first clients are then left out of the average, exactly and one at a time;
where the method verifies, they stand in the order of what was found.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from tracefl.errors import ModelMismatchError
from tracefl.provenance.attribution import Attribution
from tracefl.provenance.engine import DEFAULT_MEMORY_BUDGET, Precision
from tracefl.provenance.inputs import Inputs
from tracefl.provenance.method import Method, attribute_round
from tracefl.provenance.record import RoundRecord
from tracefl.provenance.removal import effects_of, logits_without
from tracefl.provenance.verification import ExactRemovals, verified

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Removal:
    """The prediction when one client is left out of the average, without training.

    Attributes:
        effect: By how much the predicted class's centered logit falls; positive where the client supports it.
        against_effect: By how much its lead over the other class falls, in logits; None where none was named.
        predicted: Class that is predicted without the client.
        probability: Of the class that was predicted with all clients, 0 to 1.
    """

    effect: float
    against_effect: float | None
    predicted: int
    probability: float


@dataclass(frozen=True)
class ClientPart:
    """One client's part in the prediction.

    Attributes:
        client_id: The client.
        weight: p_k, its weight in the average.
        contribution: T_k, in logits; the estimate, where the method verifies.
        score: Softmax over the round's clients of their contributions, of verified ones where the method verifies; 0 to
            1.
        by_layer: What each layer adds to the contribution, in the order of ``Explanation.layers``.
        held: Training examples of the predicted class that it holds; None where that is not known.
        against: Contribution to the lead over the other class, in logits; None where none was named.
        removal: The prediction without it; None where it was not computed.
    """

    client_id: str
    weight: float
    contribution: float
    score: float
    by_layer: tuple[float, ...]
    held: int | None
    against: float | None
    removal: Removal | None


@dataclass(frozen=True)
class Explanation:
    """Who is responsible for one prediction of a round's global model.

    Attributes:
        server_round: The round.
        predicted: The predicted class.
        probabilities: Of every class, softmax of the logits; they sum to 1.
        against: The class it is compared with, or None.
        lead: Logit of the predicted class less that of ``against``; None likewise.
        layers: Names of the traced layers, in the order of ``named_modules()``.
        clients: The round's clients, in the order of the method's answer.
    """

    server_round: int
    predicted: int
    probabilities: tuple[float, ...]
    against: int | None
    lead: float | None
    layers: tuple[str, ...]
    clients: tuple[ClientPart, ...]

    @property
    def probability(self) -> float:
        """Of the predicted class, 0 to 1."""
        return self.probabilities[self.predicted]

    @property
    def holders_fraction(self) -> float | None:
        """Share of the round's clients that hold the predicted class: what a random guess would be right by."""
        held = [client.held for client in self.clients if client.held is not None]
        return sum(examples > 0 for examples in held) / len(held) if held else None


def explain(
    global_model: nn.Module,
    record: RoundRecord,
    inputs: Inputs,
    method: Method | None = None,
    *,
    label: int | None = None,
    against: int | None = None,
    label_counts: Tensor | None = None,
    checked: int = 3,
    memory_budget: int = DEFAULT_MEMORY_BUDGET,
    precision: Precision = "float32",
    device: torch.device | str | None = None,
) -> Explanation:
    """Explain one prediction by the round's clients.

    Args:
        global_model: A model that holds ``record.global_weights``. It is given back as it was.
        record: The round.
        inputs: ``(1, ...)`` one input, or a mapping of such tensors.
        method: What is computed; None for the preset ``removal``.
        label: True class, only used where ``method.target`` is ``"label"``.
        against: Why the predicted class and not this one; None for no such question.
        label_counts: ``(K, C)`` training examples of each class, rows in the order of ``record.clients``.
        checked: How many of the first clients are left out, for an exact check; one forward pass each.
        memory_budget: As in ``attribute``.
        precision: As in ``attribute``.
        device: As in ``attribute``.

    Raises:
        ValueError: More inputs than one, ``against`` is the predicted class or none of the model's, or the true class
            is asked for and not given.
        ModelMismatchError: As ``attribute``.
        LayerNotTraceableError: As ``attribute``.
    """
    method = method or Method()
    count = len(next(iter(inputs.values())) if isinstance(inputs, dict) else inputs)
    if count != 1:
        raise ValueError(f"one input is explained at a time, got {count}")
    if method.target == "label" and label is None:
        raise ValueError("the target is the true label's logit, and the input's label is not known")

    def parts(method: Method, of_class: int) -> Attribution:
        return attribute_round(
            global_model,
            record,
            inputs,
            torch.tensor([of_class]),
            replace(method, verify=0),  # layers divide the estimate; who comes first is verified below
            by_layer=True,
            memory_budget=memory_budget,
            precision=precision,
            device=device,
        )

    found = parts(method, 0 if label is None else label)
    assert found.by_layer is not None
    contributions, by_layer, predicted = found.contributions[0].double(), found.by_layer[0], int(found.predicted)
    removals = ExactRemovals(global_model, record, inputs, device=device)
    found = verified(found, removals, method.verify)
    ids = list(record.clients)
    order = [ids.index(client_id) for client_id, _ in found.ranking(0)]
    left_out = list(dict.fromkeys((*found.verified_clients(0), *(ids[k] for k in order[:checked]))))
    impossible = {ids[k] for k in torch.nonzero(~removals.possible).flatten().tolist()}
    left_out = [client_id for client_id in left_out if client_id not in impossible]
    try:
        logits, without = logits_without(global_model, record, inputs, left_out, device=device)  # (1, C), (R, 1, C)
    except ModelMismatchError as error:  # such as a variance that a faulty client made negative
        log.warning("not checked against exact removals: %s", error)
        left_out = []
        logits, without = logits_without(global_model, record, inputs, left_out, device=device)
    lead, toward = None, None
    if against is not None:
        if not 0 <= against < logits.shape[1]:
            raise ValueError(f"there is no class {against}: the model has classes 0 to {logits.shape[1] - 1}")
        if against == predicted:
            raise ValueError(f"class {against} is the predicted one; name another to compare it with")
        of_class = replace(method, target="label", verify=0)
        sides = [parts(of_class, side).contributions[0].double() for side in (predicted, against)]
        toward = sides[0] - sides[1]  # (K,)
        lead = _lead(logits[0], predicted, against)
    removed = dict(zip(left_out, _removals(logits, without, predicted, against), strict=True))
    return Explanation(
        server_round=record.server_round,
        predicted=predicted,
        probabilities=tuple(logits[0].softmax(dim=0).tolist()),
        against=against,
        lead=lead,
        layers=found.layers,
        clients=tuple(
            ClientPart(
                client_id=ids[k],
                weight=float(record.client_weights[ids[k]]),
                contribution=float(contributions[k]),
                score=float(found.scores[0, k]),
                by_layer=tuple(by_layer[k].tolist()),
                held=None if label_counts is None else int(label_counts[k, predicted]),
                against=None if toward is None else float(toward[k]),
                removal=removed.get(ids[k]),
            )
            for k in order
        ),
    )


def _removals(logits: Tensor, without: Tensor, predicted: int, against: int | None) -> Iterator[Removal]:
    """Yield what each removal does: logits with all clients are ``(1, C)``, with one left out each ``(R, 1, C)``."""
    for left in without:
        effect = float(effects_of(logits, left.unsqueeze(0), torch.tensor([predicted])))
        lead = None
        if against is not None:
            lead = _lead(logits[0], predicted, against) - _lead(left[0], predicted, against)
        yield Removal(effect, lead, int(left[0].argmax()), float(left[0].softmax(dim=0)[predicted]))


def _lead(logits: Tensor, predicted: int, against: int) -> float:
    """Return by how much one class's logit, of ``(C,)``, is above another's."""
    return float(logits[predicted] - logits[against])
