"""The ground truth of a round: every prediction with all clients, and without each of them."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tracefl.errors import ModelMismatchError
from tracefl.provenance.attribution import nobody_carries
from tracefl.provenance.capture import frozen_eval
from tracefl.provenance.compute import Compute
from tracefl.provenance.inputs import Inputs, plain_model
from tracefl.provenance.record import RoundRecord
from tracefl.provenance.removal import centered_logit, class_probability, logits_with_all, without_each

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

    client_ids: tuple[str, ...]
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


@torch.no_grad()
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
        ValueError: A client is the whole average.
        ModelMismatchError: The model with all clients gives logits that are not finite.
    """
    batch_size, model = compute.forward_batch_size, plain_model(global_model)
    with frozen_eval(model, compute.device) as place:
        logits, batch = logits_with_all(model, record, inputs, batch_size, place, check)  # (B, C)
        if not logits.isfinite().all():
            raise ModelMismatchError(f"the model of round {record.server_round} gives logits that are not finite")
        predicted = logits.argmax(dim=1)
        columns = []
        for _, without in without_each(model, record, batch, None, batch_size, place):
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
