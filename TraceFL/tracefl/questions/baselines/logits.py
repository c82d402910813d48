"""Logits of the evidence's inputs under other weights."""

from collections.abc import Mapping

import torch
from torch import Tensor

from tracefl.provenance.removal import logits_under
from tracefl.questions.baselines.evidence import Evidence, NotApplicableError

_BATCH_SIZE = 256


def finite_logits(evidence: Evidence, weights: Mapping[str, Tensor], device: torch.device, whose: str) -> Tensor:
    """Return the ``(M, C)`` float64 logits of the model with other weights, on ``device``.

    Args:
        evidence: Its model must be on ``device`` and in evaluation mode, see ``undisturbed``.
        weights: State dict.
        device: Where to compute.
        whose: The model's name in the message.

    Raises:
        NotApplicableError: A logit is not finite.
    """
    logits = logits_under(evidence.model, weights, evidence.inputs, _BATCH_SIZE, device)
    if not logits.isfinite().all():
        raise NotApplicableError(f"{whose} gives logits that are not finite")
    return logits
