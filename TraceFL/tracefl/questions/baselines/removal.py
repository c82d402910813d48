"""The exact removal of each client from the average, as a rule beside the others."""

from torch import Tensor

from tracefl.errors import ModelMismatchError
from tracefl.provenance import removal_effects
from tracefl.questions.baselines.evidence import Evidence, NotApplicableError


def removal(evidence: Evidence) -> Tensor:
    """Suspect the client whose removal from the average lowers the predicted class's centered logit most.

    Exact, see ``tracefl.provenance.removal``. Cost: K + 1 forward passes, and K averages of the weights.

    Returns:
        ``(M, K)`` in logits.

    Raises:
        NotApplicableError: The round has one client only, or a model without a client gives logits that are not finite.
    """
    if len(evidence.record.clients) < 2:
        raise NotApplicableError("removal needs at least 2 clients in the round, this one has 1")
    try:
        return removal_effects(evidence.model, evidence.record, evidence.inputs, device=evidence.device)
    except ModelMismatchError as error:
        raise NotApplicableError(str(error)) from error
