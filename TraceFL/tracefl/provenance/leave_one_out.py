"""The ground truth of a round: every prediction with all clients, and without each of them."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tracefl.common.imports import imported
from tracefl.provenance.attribution import ROUNDING, nobody_carries
from tracefl.provenance.capture import frozen_eval
from tracefl.provenance.compute import Compute
from tracefl.provenance.inputs import Inputs, plain_model
from tracefl.provenance.modes import in_any_mode
from tracefl.provenance.reading import read_round
from tracefl.provenance.record import ClientId, RoundRecord
from tracefl.provenance.removal import centered_logit, class_probability, logits_with_all, without_each
from tracefl.provenance.showing import MOST_SHOWN, Shown, ShownClient, as_html, as_text, draw

NO_CLASS = -1


@dataclass(frozen=True)
class Counterfactuals:
    """What a round's model predicts for B inputs, and what it would predict without each of its K clients: exact.

    Logits and probabilities are those of the class predicted with all clients. They are NaN where the model without a
    client gives logits that are not finite, for example because a faulty client made a variance negative.

    Attributes:
        client_ids: The K clients, in the order of the columns below.
        predicted: ``(B,)`` int64 class that is predicted with all clients.
        centered_logits: ``(B,)`` its logit less the mean of all logits, float64.
        probabilities: ``(B,)`` its probability, 0 to 1, float64.
        centered_logits_without: ``(B, K)`` that class's centered logit without each client.
        probabilities_without: ``(B, K)`` its probability without each client.
        predicted_without: ``(B, K)`` int64 class that is predicted without each client, ``NO_CLASS`` where the others
            are NaN.
    """

    client_ids: tuple[ClientId, ...]
    predicted: Tensor
    centered_logits: Tensor
    probabilities: Tensor
    centered_logits_without: Tensor
    probabilities_without: Tensor
    predicted_without: Tensor

    @property
    def effects(self) -> Tensor:
        """``(B, K)`` by how much each removal lowers the centered logit, in logits; see ``removal_effects``."""
        return self.centered_logits.unsqueeze(1) - self.centered_logits_without

    @property
    def measured(self) -> Tensor:
        """``(B, K)`` bool, where the model without the client gives finite logits."""
        return self.predicted_without != NO_CLASS

    @property
    def changed(self) -> Tensor:
        """``(B, K)`` bool, where another class is predicted without the client."""
        return self.measured & (self.predicted_without != self.predicted.unsqueeze(1))

    @property
    def first(self) -> Tensor:
        """``(B,)`` int64 column of the client whose removal lowers the centered logit most, -1 where none is known."""
        order = self.effects.nan_to_num(nan=-torch.inf)
        return torch.where(self.measured.any(dim=1), order.argmax(dim=1), -1)

    def to_frame(self) -> Any:
        """Return a pandas DataFrame with one row for each input and client.

        Columns: ``input``, ``predicted``, ``centered_logit``, ``probability``, ``client``, ``effect``,
        ``centered_logit_without``, ``probability_without``, ``predicted_without`` (missing where the model without the
        client gives no finite logits), ``changed``.

        Raises:
            ConfigError: pandas is not installed.
        """
        effects, changed, measured = self.effects.tolist(), self.changed.tolist(), self.measured.tolist()
        rows = [
            {
                "input": i,
                "predicted": int(self.predicted[i]),
                "centered_logit": float(self.centered_logits[i]),
                "probability": float(self.probabilities[i]),
                "client": client_id,
                "effect": effects[i][k],
                "centered_logit_without": float(self.centered_logits_without[i, k]),
                "probability_without": float(self.probabilities_without[i, k]),
                "predicted_without": int(self.predicted_without[i, k]) if measured[i][k] else None,
                "changed": changed[i][k],
            }
            for i in range(len(self.predicted))
            for k, client_id in enumerate(self.client_ids)
        ]
        return imported("pandas", "to_frame()").DataFrame(rows).astype({"predicted_without": "Int64"})

    def plot(self, ax: Any = None) -> Any:
        """Draw the signed effects, of one input as bars, of several as a map; returns matplotlib's Axes.

        Args:
            ax: Where to draw; None for a new figure.

        Raises:
            ConfigError: matplotlib is not installed.
            TypeError: ``ax`` is no Axes.
        """
        return draw(ax, self.client_ids, self.effects, self.measured, "Effects of leaving each client out")

    def __str__(self) -> str:
        """Return each input's clients by effect, as lines of at most 80 columns."""
        return as_text(self._heading(), self._shown(), len(self.predicted), ())

    def _repr_html_(self) -> str:
        return as_html(self._heading(), self._shown(), len(self.predicted), ())

    def _heading(self) -> str:
        count = len(self.client_ids)
        return f"{len(self.predicted)} predictions without each of {count} clients (chance to be first {1 / count:.1%})"

    def _shown(self) -> list[Shown]:
        found = []
        for i in range(min(len(self.predicted), MOST_SHOWN)):
            effects = self.effects[i].tolist()
            order = sorted(range(len(effects)), key=lambda k: -effects[k] if effects[k] == effects[k] else math.inf)
            clients = [ShownClient(str(self.client_ids[k]), None, effects[k], True, None) for k in order]
            first = int(self.first[i])
            carried_by = None if first < 0 or self.nobody[i] else self.client_ids[first]
            heading = f"input {i}: class {int(self.predicted[i])} ({float(self.probabilities[i]):.1%})"
            found.append(Shown(heading, clients, carried_by))
        return found

    @property
    def carried_by(self) -> Tensor:
        """``(B,)`` int64 column of the client that carries the prediction; -1 where no known effect is positive.

        That is ``first``, where its effect is positive beyond ``attribution.ROUNDING``.
        """
        largest = self.effects.nan_to_num(nan=-torch.inf).max(dim=1).values
        return torch.where(largest > ROUNDING, self.first, -1)

    @property
    def nobody(self) -> Tensor:
        """``(B,)`` bool, where nobody carries the prediction: all effects are known, and none is positive."""
        return self.measured.all(dim=1) & nobody_carries(self.effects)

    @property
    def common_effects(self) -> Tensor:
        """``(B,)`` what all removals have in common, in logits: the mean effect over the clients that are known.

        An average of fewer models is another average, and raises or lowers every logit whoever is missing. NaN where
        no effect is known.
        """
        return self.effects.nanmean(dim=1)

    @property
    def own_effects(self) -> Tensor:
        """``(B, K)`` what tells clients apart, in logits: the effects less ``common_effects``."""
        return self.effects - self.common_effects.unsqueeze(1)


@in_any_mode
def counterfactuals(
    global_model: nn.Module,
    record: RoundRecord,
    inputs: Inputs,
    *,
    check: bool = True,
    compute: Compute = Compute(),
) -> Counterfactuals:
    """Return the predictions with all clients, and without each of them.

    Args:
        global_model: The architecture; its own weights are not used and not changed.
        record: The round, of at least two clients. Each is read twice, and one is held at a time.
        inputs: ``(B, ...)`` or a mapping of such tensors.
        check: As in ``logits_without``.
        compute: The device, and the inputs in one forward.

    Returns:
        The predictions, on the CPU. Takes K + 1 forward passes.

    Raises:
        ValueError: A client is the whole average, or inputs are not finite.
        ModelMismatchError: The model with all clients gives logits that are not finite, or names or shapes are not the
            model's.
        RecordError: The record is no average.
    """
    batch_size, model = compute.forward_batch_size, plain_model(global_model)
    record = read_round(model, record)
    with frozen_eval(model, compute.device) as place:
        logits, batch = logits_with_all(model, record, inputs, batch_size, place, check)  # (B, C)
        predicted = logits.argmax(dim=1)
        columns = []
        for _, without in without_each(model, record, batch, None, batch_size, place, check):
            lost = ~without.isfinite().all(dim=1)
            columns.append(
                (
                    centered_logit(without, predicted).masked_fill(lost, torch.nan).cpu(),
                    class_probability(without, predicted).masked_fill(lost, torch.nan).cpu(),
                    without.argmax(dim=1).masked_fill(lost, NO_CLASS).cpu(),
                )
            )
    centered, probabilities, classes = (torch.stack(column, dim=1) for column in zip(*columns, strict=True))
    return Counterfactuals(
        tuple(record.clients),
        predicted.cpu(),
        centered_logit(logits, predicted).cpu(),
        class_probability(logits, predicted).cpu(),
        centered,
        probabilities,
        classes,
    )
