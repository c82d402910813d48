"""Rules that take one call of the provenance engine each: published formula, removal, Shapley values."""

from torch import Tensor

from tracefl.common.warned import reworded
from tracefl.errors import LayerNotTraceableError, ModelMismatchError
from tracefl.provenance import Compute, Method, attribute_round, removal_effects
from tracefl.provenance.shapley import TooManyClientsError, exact_shapley
from tracefl.questions.baselines.evidence import Evidence, NotApplicableError

ARTIFACT = Method(layer_decay=0.9, weighting="none", reference="none", target="predicted", also=())
"""The preset ``artifact``."""


def artifact(evidence: Evidence) -> Tensor:
    """Suspect by the published formula (Gill, Anwar and Gulzar 2025, Eq. 2 to 7 without p_k).

    It traces all layers that can be traced, within the engine's default memory. Cost: one forward and backward pass,
    and one read of the weights.

    Returns:
        ``(M, K)`` contributions.

    Raises:
        NotApplicableError: The model cannot be traced, or a client's weights do not fit it.
    """
    model, record, inputs = evidence.model, evidence.record, evidence.inputs
    unused = evidence.predicted  # in place of labels: the formula's target is the predicted class
    try:
        with reworded(_words):
            found = attribute_round(model, record, inputs, unused, ARTIFACT, compute=Compute(device=evidence.device))
    except (LayerNotTraceableError, ModelMismatchError) as error:
        raise NotApplicableError(str(error)) from error
    return found.contributions.double().cpu()


def _words(text: str) -> str | None:
    """Return a warning of the engine as one of the rule: what it cannot be given is left out."""
    return None if text == ARTIFACT.weakness else f"the rule artifact: {text.partition('; also=')[0]}"


def removal(evidence: Evidence) -> Tensor:
    """Suspect the client whose exact removal from the average lowers the predicted class's centered logit most.

    Cost: K + 1 forward passes, and K averages of the weights.

    Returns:
        ``(M, K)`` in logits.

    Raises:
        NotApplicableError: The round has one client only, or a model without a client gives logits that are not finite.
    """
    if len(evidence.record.clients) < 2:
        raise NotApplicableError("removal needs at least 2 clients in the round, this one has 1")
    compute = Compute(device=evidence.device)
    try:
        return removal_effects(evidence.model, evidence.record, evidence.inputs, compute=compute)
    except ModelMismatchError as error:
        raise NotApplicableError(str(error)) from error


def shapley(evidence: Evidence) -> Tensor:
    """Suspect the client with the highest exact Shapley value, to whom most of the predicted class's logit is due.

    Cost: 2^K averages of the weights and 2^K forward passes: 1,024 for 10 clients.

    Returns:
        ``(M, K)`` in logits.

    Raises:
        NotApplicableError: The round has more than ``provenance.shapley.MAX_CLIENTS`` clients, or a subset's model
            gives logits that are not finite.
    """
    model, record, compute = evidence.model, evidence.record, Compute(device=evidence.device)
    try:
        return exact_shapley(model, record, evidence.inputs, evidence.predicted, compute=compute).values
    except (TooManyClientsError, ModelMismatchError) as error:
        raise NotApplicableError(str(error)) from error
