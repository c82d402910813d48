"""Provenance by the formula that made the paper's published numbers, beside the preset that a run uses."""

from torch import Tensor

from tracefl.baselines.evidence import Evidence
from tracefl.provenance import Method, attribute_round

ARTIFACT = Method(layer_decay=0.9, weighting="none", reference="none", target="predicted", also=())
"""The preset ``artifact``."""


def artifact(evidence: Evidence) -> Tensor:
    """Suspect whom the published formula holds responsible (Gill, Anwar and Gulzar 2025, Eq. 2 to 7 without p_k).

    Cost: one forward and backward pass, and one reading of the weights.

    Returns:
        ``(M, K)`` contributions.
    """
    found = attribute_round(
        evidence.model, evidence.record, evidence.inputs, evidence.predicted, ARTIFACT, device=evidence.device
    )
    return found.contributions.double().cpu()
