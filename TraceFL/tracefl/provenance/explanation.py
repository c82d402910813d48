"""Explain one prediction: who carried it, in which layers, against which other class, and what changes without them.

Client k's estimate is what ``attribute_round`` estimates for the method's target, and its parts by layer sum up to it;
its contribution T_k is the same, or its exact effect where the method verifies. Why class c and not class d is answered
by the difference of their logits: T_k(c) - T_k(d), with the method's own weighting, reference and layers, or, where T_k
is exact, by how much it falls without the client. The first clients are then left out of the average, exactly and one
at a time. Where that is known of all clients, it orders them and says who carries the prediction, or that nobody does.
A robust rule's model is no sum of its clients' parts: of such a round there is no estimate and nothing by layer, and
all contributions are exact effects.
"""

import logging
import textwrap
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tracefl.common.imports import imported
from tracefl.errors import ModelMismatchError
from tracefl.provenance.attribution import ROUNDING, Attribution
from tracefl.provenance.budget import proofs_of
from tracefl.provenance.compute import Compute
from tracefl.provenance.inputs import Inputs, plain_model
from tracefl.provenance.method import attribute_round, estimates
from tracefl.provenance.modes import in_any_mode
from tracefl.provenance.options import Method
from tracefl.provenance.prevention import prevented_words
from tracefl.provenance.reading import read_round
from tracefl.provenance.record import ClientId, RoundRecord
from tracefl.provenance.removal import effects_of, logits_notes, logits_without
from tracefl.provenance.showing import Shown, ShownClient, as_html, as_text, draw
from tracefl.provenance.targets import Target
from tracefl.provenance.verification import ExactRemovals, verified

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Removal:
    """The prediction when one client is left out of the average, without training.

    Attributes:
        effect: By how much the predicted class's centered logit falls; positive where the client supports it.
        against_effect: By how much its lead over the other class falls, in logits; None where none was named.
        predicted: Class that is predicted without the client.
        probability: Probability, without the client, of the class predicted with all clients, 0 to 1.
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
        contribution: T_k, in logits: what the clients are ranked by, and so the exact effect where it is verified.
        estimate: What the layers add up to, in logits; the contribution itself, unless that is verified. None where
            nothing is estimated, for a robust rule.
        score: Softmax of the contributions over the round's clients, 0 to 1.
        by_layer: What each layer adds to the estimate, in the order of ``Explanation.layers``.
        held: Training examples of the predicted class that it holds; None where that is not known.
        against: Contribution to the lead over the other class, in logits, exact where ``contribution`` is; None where
            no class was named.
        removal: The prediction without it; None where it was not computed.
        is_exact: Whether the contribution is the exact effect of that removal.
    """

    client_id: ClientId
    weight: float
    contribution: float
    estimate: float | None
    score: float
    by_layer: tuple[float, ...]
    held: int | None
    against: float | None
    removal: Removal | None
    is_exact: bool = False


@dataclass(frozen=True)
class Explanation:
    """Who is responsible for one prediction of a round's global model.

    Attributes:
        server_round: The round.
        predicted: The predicted class.
        probabilities: Probability of every class: softmax of the logits, so they sum to 1.
        against: The class it is compared with, or None.
        lead: Logit of the predicted class less that of ``against``; None without one.
        layers: Names of the traced layers, in the order of ``named_modules()``; none for a robust rule.
        clients: The round's clients, by the exact effect of their removal where all are known, else by contribution.
    """

    server_round: int
    predicted: int
    probabilities: tuple[float, ...]
    against: int | None
    lead: float | None
    layers: tuple[str, ...]
    clients: tuple[ClientPart, ...]
    class_names: tuple[str, ...] | None = None
    text: str | None = None
    picture: Tensor | None = None

    @property
    def probability(self) -> float:
        """Probability of the predicted class, 0 to 1."""
        return self.probabilities[self.predicted]

    @property
    def is_settled(self) -> bool:
        """Whether the exact effects of all clients are known, which then order them."""
        return all(client.removal is not None for client in self.clients)

    @property
    def is_exact(self) -> bool:
        """Whether all contributions are exact effects, and none an estimate."""
        return all(client.is_exact for client in self.clients)

    @property
    def is_in_order(self) -> bool:
        """Whether the contributions order the clients as they stand, so that no score contradicts a place."""
        contributions = [client.contribution for client in self.clients]
        return contributions == sorted(contributions, reverse=True)

    @property
    def responsible(self) -> ClientId | None:
        """The client that carries the prediction, the first one; None where nobody does.

        Nobody carries a prediction that is as sure without any one client: what ranks the first one is its exact
        effect, and not positive beyond ``attribution.ROUNDING``.
        """
        first = self.clients[0]
        if (self.is_settled or first.is_exact) and first.removal is not None and first.removal.effect <= ROUNDING:
            return None
        return first.client_id

    @property
    def caveat(self) -> str | None:
        """A sentence where exact effects and contributions do not order the clients alike; None elsewhere.

        Whose exact effect contradicts a place by contribution is told by ``contradicted``.
        """
        if self.is_settled and not self.is_in_order:
            return "the order is that of the exact effects; contributions order the clients otherwise"
        return self._shown().caveat

    @property
    def contradicted(self) -> tuple[ClientId, ...]:
        """The clients whose exact effect contradicts their place."""
        marked = zip(self.clients, self._shown().marked, strict=True)
        return tuple(client.client_id for client, is_marked in marked if is_marked)

    @property
    def holders_fraction(self) -> float | None:
        """Share of the round's clients that hold the predicted class: the chance that a random guess is right."""
        held = [client.held for client in self.clients if client.held is not None]
        return sum(examples > 0 for examples in held) / len(held) if held else None

    def to_frame(self) -> Any:
        """Return a pandas DataFrame with one row for each client, by rank.

        Columns: ``client``, ``rank`` from 1, ``weight``, ``contribution``, ``exact_effect`` and ``predicted_without``,
        ``probability_without`` (empty where the client was not left out), ``score``; and ``held``, ``against`` where
        they are known.

        Raises:
            ConfigError: pandas is not installed.
        """
        rows = [
            {
                "client": client.client_id,
                "rank": rank,
                "weight": client.weight,
                "contribution": client.contribution,
                "exact_effect": None if client.removal is None else client.removal.effect,
                "predicted_without": None if client.removal is None else self._class(client.removal.predicted),
                "probability_without": None if client.removal is None else client.removal.probability,
                "score": client.score,
                "held": client.held,
                "against": client.against,
            }
            for rank, client in enumerate(self.clients, 1)
        ]
        numbers = dict.fromkeys(("exact_effect", "probability_without", "against"), float)
        frame = imported("pandas", "to_frame()").DataFrame(rows).astype(numbers)
        unknown = {"held": self.holders_fraction is None, "against": self.against is None}
        return frame.drop(columns=[name for name, is_unknown in unknown.items() if is_unknown])

    def plot(self, ax: Any = None) -> Any:
        """Draw the signed contributions as bars, exact effects where they are known; returns matplotlib's Axes.

        Args:
            ax: Where to draw; None for a new figure.

        Raises:
            ConfigError: matplotlib is not installed.
            TypeError: ``ax`` is no Axes.
        """
        shown = self._shown()
        values = torch.tensor([[client.contribution for client in shown.clients]])
        exact = torch.tensor([[client.is_exact for client in shown.clients]])
        title = "\n".join([f"Contributions to {shown.heading}", *textwrap.wrap(shown.caveat or "", 70)])
        return draw(ax, [client.client for client in shown.clients], values, exact, title)

    def __str__(self) -> str:
        """Return the ranked clients, as lines of at most 80 columns."""
        return as_text(self._heading(), [self._shown()], 1, ())

    def _repr_html_(self) -> str:
        return as_html(self._heading(), [self._shown()], 1, ())

    def _heading(self) -> str:
        count = len(self.clients)
        held = "" if self.holders_fraction is None else f"; {self.holders_fraction:.1%} of them hold the class"
        return f"Who carried this prediction, of {count} clients (chance {1 / count:.1%}){held}"

    def _class(self, number: int) -> Any:
        return number if self.class_names is None else self.class_names[number]

    def _shown(self) -> Shown:
        in_order = self.is_in_order
        clients = [
            ShownClient(
                client=str(client.client_id),
                weight=client.weight,
                contribution=effect if effect is not None and self.is_settled else client.contribution,
                is_exact=self.is_settled or client.is_exact,
                score=client.score if in_order else None,
                effect=None if self.is_settled or client.is_exact else effect,
            )
            for client in self.clients
            for effect in [None if client.removal is None else client.removal.effect]
        ]
        heading = f"class {self._class(self.predicted)} ({self.probability:.1%})"
        return Shown(heading, clients, self.responsible, self.text, self.picture)


@in_any_mode
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
    check: bool = True,
    compute: Compute = Compute(),
) -> Explanation:
    """Explain one prediction by the round's clients.

    Args:
        global_model: The architecture; it is given ``record.global_weights``, and its own weights again afterwards.
        record: The round.
        inputs: ``(1, ...)`` one input, or a mapping of such tensors.
        method: How to attribute; None for the preset ``removal``.
        label: True class, only used where ``method.target`` is ``"label"``.
        against: Another class to compare the predicted one with; None for no comparison.
        label_counts: ``(K, C)`` training examples of each class, rows in the order of ``record.clients``.
        checked: How many of the first clients are left out, for an exact check; one forward pass each.
        check: Whether the attribution checks itself and the record, as in ``attribute_round``.
        compute: The device, and the bounds on memory.

    Raises:
        TypeError: ``method`` is no ``Method``.
        ValueError: There is more than one input, ``against`` is the predicted class or no class of the model, or the
            target is the true label's logit and no label is given.
        ModelMismatchError: As ``attribute_round``.
        LayerNotTraceableError: As ``attribute_round``.
        RecordError: As ``attribute_round``.
    """
    method = Method() if method is None else Method.checked(method)
    record = read_round(plain_model(global_model), record)
    if method.target == "label" and label is None:
        raise ValueError("the target is the true label's logit, and the input's label is not known")
    if method.weakness:
        warnings.warn(method.weakness, stacklevel=3)
    logits, _ = logits_without(global_model, record, inputs, (), check=check, compute=compute)  # (1, C)
    if len(logits) != 1:
        raise ValueError(f"one input is explained at a time, got {len(logits)}")
    for note in logits_notes(plain_model(global_model), logits):
        warnings.warn(note, stacklevel=3)
    predicted = int(logits.argmax())
    if against is not None:
        _check_against(against, predicted, logits.shape[1])
    lead = None if against is None else _lead(logits[0], predicted, against)
    removals = ExactRemovals(global_model, record, inputs, compute, check)
    estimate = toward = None
    if record.aggregation is not None and method.estimates_removal:
        answer = attribute_round(
            global_model, record, inputs, method=method, check=check, compute=compute, removals=removals
        )
    else:
        targets: list[Target] = [torch.tensor([label]) if method.target == "label" else method.target]
        if against is not None:
            targets += [torch.tensor([predicted]), torch.tensor([against])]
        estimate, *sides = estimates(
            global_model, record, inputs, targets, method, by_layer=True, check=check, compute=compute
        )
        toward = sides[0].contributions[0].double() - sides[1].contributions[0].double() if sides else None  # (K,)
        answer = verified(estimate, removals, proofs_of(method, len(record.clients)), method)
    if answer.doubt:
        log.warning("all %d clients are left out exactly: %s", len(record.clients), answer.doubt)
    without = _logits_without_first(global_model, record, inputs, answer, removals, checked, check, compute)
    ids = list(record.clients)
    parts = []
    for k in (ids.index(client_id) for client_id, _ in answer.ranking(0)):
        removal = _removal(logits, without[ids[k]], predicted, against) if ids[k] in without else None
        is_exact = removal is not None and answer.verified is not None and bool(answer.verified[0, k])
        lead_part = None if toward is None else float(toward[k])
        parts.append(
            ClientPart(
                client_id=ids[k],
                weight=float(record.client_weights[ids[k]]),
                contribution=float(answer.contributions[0, k]),
                estimate=None if estimate is None else float(estimate.contributions[0, k]),
                score=float(answer.scores[0, k]),
                by_layer=()
                if estimate is None or estimate.by_layer is None
                else tuple(estimate.by_layer[0, k].tolist()),
                held=None if label_counts is None else int(label_counts[k, predicted]),
                against=removal.against_effect if removal is not None and is_exact else lead_part,
                removal=removal,
                is_exact=is_exact,
            )
        )
    if len(without) == len(ids):
        parts.sort(key=lambda part: -part.removal.effect if part.removal else 0.0)  # stable: equal ones stay in order
    probabilities = tuple(logits[0].softmax(dim=0).tolist())
    layers = () if estimate is None else estimate.layers
    return Explanation(record.server_round, predicted, probabilities, against, lead, layers, tuple(parts))


def _check_against(against: int, predicted: int, num_classes: int) -> None:
    if not 0 <= against < num_classes:
        raise ValueError(f"there is no class {against}: the model has classes 0 to {num_classes - 1}")
    if against == predicted:
        raise ValueError(f"class {against} is the predicted one; name another to compare it with")


def _logits_without_first(
    global_model: nn.Module,
    record: RoundRecord,
    inputs: Inputs,
    answer: Attribution,
    removals: ExactRemovals,
    checked: int,
    check: bool,
    compute: Compute,
) -> dict[ClientId, Tensor]:
    """Return, by client id, the ``(1, C)`` logits without each of the first ``checked`` and the verified clients.

    Where one of these models gives logits that are not finite, that client is missing, with a warning in the log.
    """
    first = (client_id for client_id, _ in answer.ranking(0)[:checked])
    possible = dict(zip(record.clients, removals.possible.tolist(), strict=True))
    left_out = [k for k in dict.fromkeys((*answer.verified_clients(0), *first)) if possible[k]]
    try:
        _, without = logits_without(global_model, record, inputs, left_out, check=check, compute=compute)  # (R, 1, C)
    except ModelMismatchError:  # such as a variance that a faulty client made negative
        removals.find(torch.tensor([[k in left_out for k in record.clients]]))
        for client_id, by in removals.prevented.items():
            log.warning("not checked: %s", prevented_words(client_id, by))
        left_out = [k for k in left_out if k not in removals.prevented]
        _, without = logits_without(global_model, record, inputs, left_out, check=check, compute=compute)
    return dict(zip(left_out, without, strict=True))


def _removal(logits: Tensor, without: Tensor, predicted: int, against: int | None) -> Removal:
    """Return the effect of a removal, given the ``(1, C)`` logits with all clients and without the one."""
    effect = float(effects_of(logits, without.unsqueeze(0), torch.tensor([predicted])))
    lead = None
    if against is not None:
        lead = _lead(logits[0], predicted, against) - _lead(without[0], predicted, against)
    return Removal(effect, lead, int(without[0].argmax()), float(without[0].softmax(dim=0)[predicted]))


def _lead(logits: Tensor, predicted: int, against: int) -> float:
    """Return how far one class's logit, of ``(C,)``, is above another's."""
    return float(logits[predicted] - logits[against])
