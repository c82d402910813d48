"""A round's weights: those that went in and those that came out."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from tracefl.errors import RecordError
from tracefl.provenance.aggregation import Aggregation

ClientId: TypeAlias = Any
"""Whatever names a client and can be a key: text, or a number such as Flower's partition ids."""

ServerStep: TypeAlias = float | Literal["nonlinear"]


@dataclass(frozen=True)
class RoundRecord:
    """The weights of an aggregated round: what its K participants started from, what they sent, and the result.

    Weights are a state dict, of tensors or NumPy arrays; the path of a safetensors file, which is read tensor by
    tensor; or a list of arrays in the order of ``model.state_dict()``. Every function that takes a record reads it as
    ``reading.read_round`` says.

    With a step s of the server, the round's model is W = W_0 + s * (A - W_0), where W_0 is what the clients started
    from and A = sum_k p_k W_k their average. Everything that is asked of a round is asked of this rule: the model
    without client k takes the same step on the others' average A_-k, W_-k = W_0 + s * (A_-k - W_0), and so does that of
    a subset in a Shapley value; the first-order effect of leaving client k out is s * p_k / (1 - p_k) times that of
    W_k - A. Contributions that are not weighted, or by p_k alone, do not depend on s.

    Many servers take the step with some tensors only, such as the parameters, and deploy the average of the others,
    such as BatchNorm's running statistics: for those s is 1 in all of this. Which they are is told by comparing.

    With a robust rule in place of the average, A_-k is what the rule makes of the other clients, chosen and trimmed
    anew. Answers then are exact removals alone: no part of such a model is a client's own.

    Attributes:
        server_round: The round, from 1.
        clients: Client id to its whole weights after local training: parameters and buffers.
        client_weights: Client id to p_k, its weight in the average: n_k / sum(n), with n_k its number of examples,
            times its factor where ``mitigate=downweight`` gave it one. They sum to 1; the n_k themselves are accepted.
        previous_global: The weights that the clients started from.
        global_weights: The weights after aggregation, those that are deployed.
        before_noise: ``global_weights`` less what the server added that comes from none of this round's clients: the
            noise of privacy, or the momentum of earlier rounds. It stays where a client is left out. None where nothing
            was added.
        server_step: s, the server's learning rate; 1 where the average itself is deployed. ``"nonlinear"`` where W is
            no such step, as with FedAdam, whatever the server does with its buffers: then nothing is said that takes a
            client out of the average.
        clients_dtype: What the clients' weights were rounded to after they had been averaged, for storage; None where
            they are as they were averaged.
        aggregation: The robust rule by which the server made one model of the clients' floating-point weights; None for
            the weighted average.
    """

    server_round: int
    clients: Mapping[ClientId, Any]
    client_weights: Mapping[ClientId, float]
    previous_global: Mapping[str, Tensor]
    global_weights: Mapping[str, Tensor]
    before_noise: Mapping[str, Tensor] | None = None
    server_step: ServerStep = 1.0
    clients_dtype: torch.dtype | None = None
    aggregation: Aggregation | None = None

    @property
    def average(self) -> Mapping[str, Tensor]:
        """The clients' average A: ``global_weights`` without noise.

        Raises:
            RecordError: The server takes a step: which tensors take it is known once the record was read.
        """
        if self.server_step != 1:
            raise RecordError(
                f"where the server takes a step, {self.server_step!r}, the average is that of the record once it was "
                "read: reading.read_round(model, record).average"
            )
        return self.made

    @property
    def made(self) -> Mapping[str, Tensor]:
        """``global_weights`` without noise."""
        return self.global_weights if self.before_noise is None else self.before_noise

    def rate(self, wanted: str) -> float:
        """Return s, for something that takes clients out of the average.

        Raises:
            RecordError: The step is not linear; the message names ``wanted``.
        """
        if self.server_step == "nonlinear":
            raise RecordError(
                f"{wanted} cannot be told where the server's step is not linear (server_step='nonlinear'): only "
                "contributions without it can, such as weighting='none' with reference='none' or 'previous_global'"
            )
        return float(self.server_step)

    def remains_without(self, client_id: ClientId) -> bool:
        """Return whether the server's rule, applied to the other clients, gives a model."""
        if self.aggregation is not None:
            return len(self.clients) > self.aggregation.fewest
        return self.server_step != "nonlinear" and self.client_weights[client_id] < 1

    def check_averaged(self, wanted: str) -> None:
        """Refuse a round that a robust rule aggregated, for something that is defined by an average.

        Raises:
            RecordError: It is such a round; the message names ``wanted``.
        """
        if self.aggregation is not None:
            raise RecordError(
                f"{wanted} cannot be told of a round that was aggregated by {self.aggregation.rule}: none of its parts "
                "is a client's own; ask for exact removals, by tracefl counterfactual or Method.leave_one_out()"
            )

    def without_noise(self) -> "RoundRecord":
        """Return the round as if it had been deployed without noise."""
        if self.before_noise is None:
            return self
        return replace(self, global_weights=self.before_noise, before_noise=None)
