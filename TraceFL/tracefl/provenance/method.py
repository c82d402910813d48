"""How a round is attributed: what a method's options mean for the round's weights."""

import logging
import warnings
from collections.abc import Sequence

from torch import Tensor, nn

from tracefl.errors import RecordError
from tracefl.provenance.attribution import Attribution
from tracefl.provenance.budget import Proofs, proofs_of
from tracefl.provenance.compute import Compute
from tracefl.provenance.engine import attribute_targets
from tracefl.provenance.inputs import Inputs, plain_model
from tracefl.provenance.modes import in_any_mode
from tracefl.provenance.options import Method
from tracefl.provenance.reading import check_average, holding, read_round
from tracefl.provenance.record import RoundRecord
from tracefl.provenance.shares import weighted
from tracefl.provenance.targets import Target
from tracefl.provenance.verification import ExactRemovals, verified

log = logging.getLogger(__name__)


@in_any_mode
def attribute_round(
    global_model: nn.Module,
    record: RoundRecord,
    inputs: Inputs,
    labels: Tensor | None = None,
    method: Method = Method(),
    *,
    by_layer: bool = False,
    check: bool = True,
    compute: Compute = Compute(),
    removals: ExactRemovals | None = None,
) -> Attribution:
    """Attribute the predictions of a round's global model to the round's clients.

    Args:
        global_model: The architecture; it is given ``record.global_weights``, and its own weights again afterwards.
        record: The round.
        inputs: ``(B, ...)`` or a mapping of such tensors.
        labels: ``(B,)`` true classes; needed where ``method.target`` is ``"label"``, else not used.
        method: How to attribute.
        by_layer: Whether to return what each layer adds, as in ``attribute``. An exact removal has no such parts, so
            where ``method.verify`` is None nobody is left out.
        check: As in ``attribute`` and ``logits_without``.
        compute: The device, and the bounds on memory.
        removals: Exact removals of this round and these inputs, to be shared with later questions: those computed here
            are kept in it.

    Raises:
        TypeError: ``method`` is no ``Method``.
        ModelMismatchError: As ``attribute``, or names or shapes are not the model's.
        LayerNotTraceableError: As ``attribute``.
        RecordError: The method needs the clients' average, and the record is none, see ``RoundRecord``.
        ValueError: ``by_layer`` with a method that is told to verify; or the target is the true label's logit, and no
            labels are given.
    """
    method = Method.checked(method)
    if by_layer and method.verify:
        raise ValueError(f"by_layer=True divides estimates among layers, and verify={method.verify} replaces them")
    proofs = Proofs(0) if by_layer else proofs_of(method, len(record.clients))
    if method.weakness:
        warnings.warn(method.weakness, stacklevel=3)
    if removals is None:
        removals = ExactRemovals(global_model, record, inputs, compute, check)
    record = removals.record
    if record.aggregation is not None and method.estimates_removal and not by_layer:
        proofs = Proofs("all")  # of which there are no estimates
    log.debug("round=%d left out exactly: %s", record.server_round, proofs)
    if proofs.each == "all" and (exact := removals.attribution()) is not None:
        return exact  # an estimate would be of no use
    if record.aggregation is not None and proofs.each == "all":
        kept = [k for k, possible in zip(record.clients, removals.possible.tolist(), strict=True) if not possible]
        raise RecordError(
            f"round {record.server_round}, of {len(record.clients)} clients, has no {record.aggregation.rule} with "
            f"finite logits without client {kept[0]!r}"
            + "".join(f", which client {by!r} prevents" for k, by in removals.prevented.items() if k == kept[0] and by)
            + f"; the rule needs {record.aggregation.fewest} clients at least"
        )
    target: Target
    if method.target != "label":
        target = method.target
    elif labels is None:
        raise ValueError("the target is the true label's logit: give the inputs' labels")
    else:
        target = labels
    (estimate,) = estimates(
        global_model, record, inputs, (target,), method, by_layer=by_layer, check=check, compute=compute
    )
    return verified(estimate, removals, proofs, method)


def estimates(
    global_model: nn.Module,
    record: RoundRecord,
    inputs: Inputs,
    targets: Sequence[Target],
    method: Method,
    *,
    by_layer: bool,
    check: bool,
    compute: Compute,
) -> list[Attribution]:
    """Return a method's unverified estimates for several targets, in one forward pass.

    Arguments and errors are those of ``attribute_round``.
    """
    model = plain_model(global_model)
    record = read_round(model, record)
    removes = method.weighting == "leave_one_out"
    record.check_averaged("an estimate of each client's part")
    if check and (removes or method.reference == "global"):
        check_average(record)
    reference = None
    if method.reference != "none":
        reference = record.average if method.reference == "global" else record.previous_global
    steps = record.steps("the effect of leaving a client out") if removes else {}
    with holding(model, record.global_weights):
        return attribute_targets(
            model,
            record.clients,
            inputs,
            targets,
            layer_decay=method.layer_decay,
            factors=weighted(record.client_weights, method.weighting),
            steps={name: rate for name, rate in steps.items() if rate != 1},
            reference=reference,
            layers=method.layers,
            also=method.also,
            by_layer=by_layer,
            check=check,
            compute=compute,
        )
