"""The answer to who carried which prediction: to read, to count with, to draw, and to show in a notebook."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from tracefl.common.imports import imported
from tracefl.provenance.attribution import Attribution
from tracefl.provenance.showing import MOST_SHOWN, Shown, ShownClient, as_html, as_text, draw


@dataclass(frozen=True, repr=False, eq=False)  # tensors have no one equality
class Answer(Sequence["Answer"]):
    """Which of K clients carried the predictions of B inputs, by their average.

    A contribution is by how much the predicted class's logit, less the mean of all logits, falls without the client:
    positive where the client supports the prediction. ``answer[i]`` is the answer for input i alone.

    Attributes:
        attribution: The contributions and scores, ``(B, K)``.
        weights: The K clients' shares p_k of the average, which sum to 1.
        probabilities: ``(B,)`` probability of the predicted class, 0 to 1.
        labels: ``(B,)`` true classes; None where they were not given.
        class_names: Names of the C classes; None where they were not given.
        texts: The B inputs as text; None where they were not given.
        pictures: ``(B, 1 or 3, H, W)`` the inputs where they are images; None elsewhere.
        notes: What was assumed, a sentence each.
    """

    attribution: Attribution
    weights: tuple[float, ...]
    probabilities: Tensor
    labels: Tensor | None = None
    class_names: tuple[str, ...] | None = None
    texts: tuple[str, ...] | None = None
    pictures: Tensor | None = None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Return the number of inputs."""
        return len(self.predicted)

    def __getitem__(self, i: Any) -> "Answer":
        """Return the answer for one input, or for a slice of them."""
        if not isinstance(i, slice):
            if not -len(self) <= i < len(self):
                raise IndexError(f"input {i} of {len(self)}")
            i = slice(i % len(self), i % len(self) + 1)
        found = self.attribution
        return replace(
            self,
            attribution=replace(
                found,
                contributions=found.contributions[i],
                scores=found.scores[i],
                predicted=found.predicted[i],
                by_layer=None if found.by_layer is None else found.by_layer[i],
                verified=None if found.verified is None else found.verified[i],
            ),
            probabilities=self.probabilities[i],
            labels=None if self.labels is None else self.labels[i],
            texts=None if self.texts is None else self.texts[i],
            pictures=None if self.pictures is None else self.pictures[i],
        )

    def __iter__(self) -> Iterator["Answer"]:
        """Yield the answer for each input."""
        return (self[i] for i in range(len(self)))

    @property
    def client_ids(self) -> tuple[str, ...]:
        """The K clients, in the order of the columns."""
        return self.attribution.client_ids

    @property
    def contributions(self) -> Tensor:
        """``(B, K)`` in logits: exact effects where ``exact``, else estimates to first order."""
        return self.attribution.contributions

    @property
    def exact(self) -> Tensor:
        """``(B, K)`` bool: whether the contribution is the effect of leaving the client out, and no estimate."""
        verified, contributions = self.attribution.verified, self.attribution.contributions
        return contributions.new_zeros(contributions.shape).bool() if verified is None else verified

    @property
    def scores(self) -> Tensor:
        """``(B, K)`` softmax of the contributions over the clients (Gill et al. 2025, Eq. 7)."""
        return self.attribution.scores

    @property
    def predicted(self) -> Tensor:
        """``(B,)`` int64 predicted classes."""
        return self.attribution.predicted

    @property
    def responsible(self) -> tuple[str | None, ...]:
        """The client that carries each prediction; None where nobody does: it is as sure without any one of them."""
        return self.attribution.responsible

    @property
    def chance(self) -> float:
        """How often a client drawn at random is the first: 1 / K."""
        return 1 / len(self.client_ids)

    def ranked(self, i: int = 0) -> list[dict[str, Any]]:
        """Return input ``i``'s clients, the one that contributes most first, as plain Python.

        Each has ``client``, ``weight`` (its share p_k), ``contribution`` in logits, ``exact_effect`` (the same where it
        was proven by leaving the client out, else None) and ``score``, 0 to 1.
        """
        one, exact = self[i], self[i].exact[0].tolist()
        places = {client_id: k for k, client_id in enumerate(self.client_ids)}
        return [
            {
                "client": client_id,
                "weight": self.weights[places[client_id]],
                "contribution": contribution,
                "exact_effect": contribution if exact[places[client_id]] else None,
                "score": float(one.scores[0, places[client_id]]),
            }
            for client_id, contribution in one.attribution.ranked_contributions(0)
        ]

    def to_frame(self) -> Any:
        """Return a pandas DataFrame with one row for each input and client, clients of an input by rank.

        Columns: ``input``, ``predicted``, ``probability``, ``label`` (where labels are known), ``client``, ``rank``
        from 1, ``weight``, ``contribution``, ``exact_effect`` (NaN where it is an estimate), ``score``, ``chance``.
        Classes are named where the names are known.

        Raises:
            ConfigError: pandas is not installed.
        """
        rows = []
        for i, shown in enumerate(self._values()):
            rows += [{"input": i, **shown, "rank": n, **ranked} for n, ranked in enumerate(self.ranked(i), 1)]
        frame = imported("pandas", "to_frame()").DataFrame(rows).assign(chance=self.chance)
        first = [name for name in ("input", "predicted", "probability", "label", "client", "rank") if name in frame]
        return frame[[*first, *(name for name in frame if name not in first)]].astype({"exact_effect": float})

    def plot(self, ax: Any = None) -> Any:
        """Draw the signed contributions, of one input as bars, of several as a map; returns matplotlib's Axes.

        Args:
            ax: Where to draw; None for a new figure.

        Raises:
            ConfigError: matplotlib is not installed.
            TypeError: ``ax`` is no Axes.
        """
        title = f"Contributions to {self._prediction(0)}" if len(self) == 1 else "Contributions, in logits"
        return draw(ax, self.client_ids, self.contributions, self.exact, title)

    def __str__(self) -> str:
        """Return the ranked clients of each input, as lines of at most 80 columns."""
        return as_text(self._heading(), self._shown(), len(self), self.notes)

    def __repr__(self) -> str:
        """Return what ``str`` does: the tensors can be looked at one by one."""
        return str(self)

    def _repr_html_(self) -> str:
        return as_html(self._heading(), self._shown(), len(self), self.notes)

    def _heading(self) -> str:
        inputs = "1 prediction" if len(self) == 1 else f"{len(self)} predictions"
        return f"Who carried {inputs}, of {len(self.client_ids)} clients (chance {self.chance:.1%})"

    def _class(self, number: int) -> Any:
        return number if self.class_names is None else self.class_names[number]

    def _values(self) -> list[dict[str, Any]]:
        """Return what is known of each input."""
        found: list[dict[str, Any]] = [
            {"predicted": self._class(predicted), "probability": probability}
            for predicted, probability in zip(self.predicted.tolist(), self.probabilities.tolist(), strict=True)
        ]
        for values, label in zip(found, [] if self.labels is None else self.labels.tolist(), strict=False):
            values["label"] = self._class(label)
        return found

    def _prediction(self, i: int) -> str:
        values = self._values()[i]
        label = f", label {values['label']}" if "label" in values else ""
        return f"class {values['predicted']} ({values['probability']:.1%}{label})"

    def _shown(self) -> list[Shown]:
        return [
            Shown(
                heading=f"input {i}: {self._prediction(i)}" if len(self) > 1 else self._prediction(i),
                clients=[ShownClient.of(row) for row in self.ranked(i)],
                carried_by=self.responsible[i],
                text=None if self.texts is None else self.texts[i],
                picture=None if self.pictures is None else self.pictures[i],
            )
            for i in range(min(len(self), MOST_SHOWN))
        ]
