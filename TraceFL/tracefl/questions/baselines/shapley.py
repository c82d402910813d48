"""Exact Shapley values of the clients, as a rule beside the others."""

from torch import Tensor

from tracefl.errors import ModelMismatchError
from tracefl.provenance.shapley import TooManyClientsError, exact_shapley
from tracefl.questions.baselines.evidence import Evidence, NotApplicableError


def shapley(evidence: Evidence) -> Tensor:
    """Suspect the client with the highest Shapley value: to whom most of the predicted logit is due.

    Exact, see ``tracefl.provenance.shapley``. Cost: 2^K averages of the weights and 2^K forward passes: 1,024 for 10
    clients.

    Returns:
        ``(M, K)`` in logits.

    Raises:
        NotApplicableError: The round has more than ``provenance.shapley.MAX_CLIENTS`` clients, or a subset's model
            gives logits that are not finite.
    """
    try:
        found = exact_shapley(
            evidence.model, evidence.record, evidence.inputs, evidence.predicted, device=evidence.device
        )
    except (TooManyClientsError, ModelMismatchError) as error:
        raise NotApplicableError(str(error)) from error
    return found.values
