"""Provenance by the formula that made the paper's published numbers, beside the preset that a run uses."""

from torch import Tensor

from tracefl.errors import LayerNotTraceableError, ModelMismatchError
from tracefl.provenance import Method, attribute_round
from tracefl.questions.baselines.evidence import Evidence, NotApplicableError

ARTIFACT = Method(layer_decay=0.9, weighting="none", reference="none", target="predicted", also=())
"""The preset ``artifact``."""


def artifact(evidence: Evidence) -> Tensor:
    """Suspect whom the published formula holds responsible (Gill, Anwar and Gulzar 2025, Eq. 2 to 7 without p_k).

    Of all layers that can be traced, within the engine's default memory. Cost: one forward and backward pass, and one
    reading of the weights.

    Returns:
        ``(M, K)`` contributions.

    Raises:
        NotApplicableError: The model cannot be traced, or a client's weights do not fit it.
    """
    labels = evidence.predicted  # not looked at: the formula's target is what is predicted
    try:
        found = attribute_round(
            evidence.model, evidence.record, evidence.inputs, labels, ARTIFACT, device=evidence.device
        )
    except (LayerNotTraceableError, ModelMismatchError) as error:
        raise NotApplicableError(str(error)) from error
    return found.contributions.double().cpu()
