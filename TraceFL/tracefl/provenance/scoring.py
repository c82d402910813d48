"""How well an attribution finds the clients it should find, compared with chance and simpler measures.

``localization_accuracy`` is the paper's: how often the traced client holds the label at all. It is lenient, so chance,
the stricter top holder and the agreement with the exact removal always stand beside it. It scores the ranking's first
client, as in the paper, also of a prediction that nobody carries; how many those are is ``nobody_fraction``.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from tracefl.provenance.attribution import ROUNDING, Attribution


@dataclass(frozen=True)
class TracedInput:
    """One traced input and how its attribution fared.

    Attributes:
        input_index: Position in the server's examples.
        label: True class.
        predicted: Class the global model predicts.
        traced_client: Client with the highest contribution, whether or not it carries the prediction; where suspicions
            are known, the most suspected one.
        expected_clients: Those to one of which it should be traced, as the paper has it: for a correct prediction the
            participants that hold the label, for a misprediction those known to be faulty; empty where none is known.
        localized: The traced client is one of them; None where none is known.
        score: The traced client's score, 0 to 1.
        ranking: (client id, score), highest first.
        chance: Share of participants that are expected, 0 to 1; None where none is known.
        top_holder: Whether no participant holds more examples of the label than the traced client; None for a
            misprediction.
        counterfactual_client: Client whose removal lowers the centered logit most; None where it was not computed.
        counterfactual_correlation: Spearman correlation of contributions and removal effects, -1 to 1; None likewise.
        contributions: (client id, contribution in units of the target, logits), in the order of the ranking.
        verified: Clients whose contribution comes from their exact removal instead of an estimate, in the order of the
            ranking.
        probability: The predicted class's, 0 to 1; None where it was not recorded.
        effects: (client id, exact effect of its removal in logits), in the order of the ranking, of all clients whose
            removal is possible; empty where the removals were not computed.
        suspicions: (client id, how far it stands out in pushing inputs of this class towards the predicted one, in
            standard deviations, see ``confusion.py``), highest first; empty where it was not asked.
    """

    input_index: int
    label: int
    predicted: int
    traced_client: str
    expected_clients: tuple[str, ...]
    localized: bool | None
    score: float
    ranking: tuple[tuple[str, float], ...]
    chance: float | None
    top_holder: bool | None
    counterfactual_client: str | None
    counterfactual_correlation: float | None
    contributions: tuple[tuple[str, float], ...]
    verified: tuple[str, ...] = ()
    probability: float | None = None
    effects: tuple[tuple[str, float], ...] = ()
    suspicions: tuple[tuple[str, float], ...] = ()

    @property
    def first_contributor(self) -> str:
        """The client with the highest contribution, whoever is suspected."""
        return self.ranking[0][0]

    @cached_property
    def exact_effects(self) -> dict[str, float]:
        """Client id to the exact effect of its removal, in logits, of all clients of which it is known."""
        verified = set(self.verified)
        return dict(self.effects) or {k: value for k, value in self.contributions if k in verified}

    @cached_property
    def is_settled(self) -> bool:
        """Whether the exact effects of all clients are known."""
        return len(self.exact_effects) == len(self.ranking)

    @cached_property
    def responsible(self) -> str | None:
        """The client that carries the prediction, None where nobody does.

        Where all exact effects are known it is the client whose removal costs the prediction most, elsewhere the traced
        client. Nobody does if the exact effect of that client is known and not positive beyond ``ROUNDING``: that of
        the others is smaller, or estimated to be.
        """
        first = self.by_effect[0]
        return first if self.exact_effects.get(first, math.inf) > ROUNDING else None

    @property
    def is_proven(self) -> bool:
        """Whether the exact effect of the client that carries the prediction, if any does, is known."""
        return self.by_effect[0] in self.exact_effects

    @cached_property
    def by_effect(self) -> tuple[str, ...]:
        """All clients, first the one that carries most: by exact effect where all are known, else by contribution."""
        ranked = tuple(client_id for client_id, _ in self.ranking)
        if not self.is_settled:
            return ranked
        return tuple(sorted(ranked, key=self.exact_effects.__getitem__, reverse=True))


@dataclass(frozen=True)
class LocalizationScores:
    """Means over a round's traced inputs, as fractions; None where there is nothing to average.

    ``nobody_fraction`` is the fraction that nobody carries, of the inputs of which the first client's exact effect is
    known.
    """

    localization_accuracy: float | None
    chance_accuracy: float | None
    top_holder_accuracy: float | None
    counterfactual_agreement: float | None
    counterfactual_correlation: float | None
    nobody_fraction: float | None
    inputs_traced: int


def select_inputs(predicted: Tensor, labels: Tensor, label_counts: Tensor, inputs_per_label: int) -> Tensor:
    """Choose the inputs to trace: correctly predicted ones of every label that a participant holds.

    Args:
        predicted: ``(N,)`` classes that the global model predicts for the server's examples.
        labels: ``(N,)`` their true classes.
        label_counts: ``(K, C)`` training examples of each class that each participant holds.
        inputs_per_label: How many of each label at most.

    Returns:
        ``(M,)`` int64 positions, ascending.
    """
    held = label_counts.sum(dim=0) > 0  # (C,)
    right = predicted == labels
    chosen = [torch.nonzero(right & (labels == c)).flatten()[:inputs_per_label] for c in torch.nonzero(held).flatten()]
    return torch.cat(chosen).sort().values if chosen else torch.zeros(0, dtype=torch.int64)


def select_mispredicted(misled: Tensor, max_inputs: int) -> Tensor:
    """Choose the mispredicted inputs to trace, evenly spaced where there are more than asked for.

    Args:
        misled: ``(N,)`` bool, the server's examples whose misprediction is to be explained.
        max_inputs: How many at most.

    Returns:
        ``(M,)`` int64 positions, ascending.
    """
    found = torch.nonzero(misled).flatten()
    if len(found) <= max_inputs:
        return found
    return found[torch.arange(max_inputs) * len(found) // max_inputs]


def select_of_each_class(labels: Tensor, max_inputs: int) -> Tensor:
    """Choose inputs of each class, evenly spaced where there are more than asked for.

    Args:
        labels: ``(N,)`` the true classes.
        max_inputs: How many of a class at most.

    Returns:
        ``(M,)`` int64 positions, ascending.
    """
    chosen = [select_mispredicted(labels == c, max_inputs) for c in sorted(set(labels.tolist()))]
    return torch.cat(chosen).sort().values if chosen else torch.zeros(0, dtype=torch.int64)


def score_inputs(
    attribution: Attribution,
    input_indices: Tensor,
    labels: Tensor,
    expected: Tensor | None,
    held: Tensor | None,
    effects: Tensor | None,
    probabilities: Tensor | None = None,
    suspicions: Tensor | None = None,
) -> tuple[TracedInput, ...]:
    """Score every traced input against what is known of the participants.

    Args:
        attribution: Attribution of M inputs to K clients.
        input_indices: ``(M,)`` positions of the inputs in the server's examples.
        labels: ``(M,)`` true classes.
        expected: ``(M, K)`` bool, columns in the order of ``attribution.client_ids``; None where it is not known who
            is.
        held: ``(M, K)`` training examples of the input's label, or None for mispredictions.
        effects: ``(M, K)`` exact removal effects, NaN for clients that cannot be left out; None where they were not
            computed. Agreement and correlation are among the others.
        probabilities: ``(M,)`` of the predicted classes, 0 to 1; None where they are not known.
        suspicions: ``(M, K)`` how far each client stands out for the input's confusion, NaN of a correct prediction;
            None where it was not asked.
    """
    ids = attribution.client_ids
    by = attribution.contributions.double()
    if suspicions is not None:
        by = torch.where(suspicions.isnan(), by, suspicions)
    traced = by.argmax(dim=1)
    known = [] if effects is None else torch.nonzero(~effects.isnan().any(dim=0)).flatten().tolist()
    correlations = None if effects is None else spearman(attribution.contributions[:, known], effects[:, known])
    exact = [] if effects is None else effects.tolist()
    column = {ids[j]: j for j in known}
    rows = []
    for i, label in enumerate(labels.tolist()):
        k, ranking = int(traced[i]), attribution.ranking(i)
        rows.append(
            TracedInput(
                input_index=int(input_indices[i]),
                label=label,
                predicted=int(attribution.predicted[i]),
                traced_client=ids[k],
                expected_clients=()
                if expected is None
                else tuple(ids[j] for j in torch.nonzero(expected[i]).flatten().tolist()),
                localized=None if expected is None else bool(expected[i, k]),
                score=float(attribution.scores[i, k]),
                ranking=ranking,
                chance=None if expected is None else float(expected[i].double().mean()),
                top_holder=None if held is None else bool(held[i, k] == held[i].max()),
                counterfactual_client=None if effects is None else ids[known[int(effects[i, known].argmax())]],
                counterfactual_correlation=None if correlations is None else float(correlations[i]),
                contributions=attribution.ranked_contributions(i),
                verified=attribution.verified_clients(i),
                probability=None if probabilities is None else float(probabilities[i]),
                effects=tuple((k, exact[i][column[k]]) for k, _ in ranking if k in column),
                suspicions=() if suspicions is None or suspicions[i].isnan().any() else _ranked(ids, suspicions[i]),
            )
        )
    return tuple(rows)


def _ranked(ids: Sequence[str], values: Tensor) -> tuple[tuple[str, float], ...]:
    """Return clients with their values, ``(K,)``, highest first; equal ones in the order of ``ids``."""
    order = values.argsort(descending=True, stable=True).tolist()
    return tuple((ids[k], float(values[k])) for k in order)


def summarize(traced: tuple[TracedInput, ...]) -> LocalizationScores:
    """Average over a round's traced inputs."""
    checked = [t for t in traced if t.counterfactual_client is not None]
    return LocalizationScores(
        localization_accuracy=mean_measured([t.localized for t in traced]),
        chance_accuracy=mean_measured([t.chance for t in traced]),
        top_holder_accuracy=mean_measured([t.top_holder for t in traced]),
        counterfactual_agreement=mean_measured([t.counterfactual_client == t.first_contributor for t in checked]),
        counterfactual_correlation=mean_measured([t.counterfactual_correlation for t in checked]),
        nobody_fraction=mean_measured([t.responsible is None for t in traced if t.is_proven]),
        inputs_traced=len(traced),
    )


def mean_measured(values: Sequence[float | None]) -> float | None:
    """Return the mean of what was measured, None where nothing was."""
    measured = [float(value) for value in values if value is not None]
    return sum(measured) / len(measured) if measured else None


def spearman(a: Tensor, b: Tensor) -> Tensor:
    """Return the rank correlation (Spearman 1904) of each row of two ``(M, K)`` tensors, ``(M,)`` float64.

    Ties take their mean rank. A row without any order (all equal) correlates with nothing: 0.
    """
    ranks = [_ranks(x) - (x.shape[1] - 1) / 2 for x in (a, b)]
    scale = (ranks[0].square().sum(dim=1) * ranks[1].square().sum(dim=1)).sqrt()
    return torch.where(scale > 0, (ranks[0] * ranks[1]).sum(dim=1) / scale, torch.zeros_like(scale))


def _ranks(x: Tensor) -> Tensor:
    """Return mean ranks from 0 of each row of ``(M, K)``, float64."""
    below = (x.unsqueeze(2) > x.unsqueeze(1)).sum(dim=2)  # (M, K): how many are smaller
    equal = (x.unsqueeze(2) == x.unsqueeze(1)).sum(dim=2)  # itself included
    return below.double() + (equal - 1).double() / 2
