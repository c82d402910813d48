"""How a round is attributed: the options, and what they mean for the round's weights."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor, nn

from tracefl.provenance.attribution import Attribution
from tracefl.provenance.compute import Compute
from tracefl.provenance.engine import attribute_targets
from tracefl.provenance.inputs import Inputs
from tracefl.provenance.record import RoundRecord
from tracefl.provenance.targets import Target
from tracefl.provenance.verification import ExactRemovals, Verify, verified

Weighting = Literal["none", "num_examples", "leave_one_out"]
Reference = Literal["none", "previous_global", "global"]
MethodTarget = Literal["predicted", "margin", "centered", "label"]

WEIGHTINGS, REFERENCES, METHOD_TARGETS = get_args(Weighting), get_args(Reference), get_args(MethodTarget)


@dataclass(frozen=True)
class Method:
    """The options of an attribution. The defaults are the preset ``removal``, unverified.

    Attributes:
        layer_decay: Factor in (0, 1] for each layer further from the output.
        weighting: Factor of client k's contribution: 1, p_k, or p_k / (1 - p_k), the step of the average when the
            client is left out.
        reference: What is subtracted from every client's weights: nothing, the weights they started from, or the
            new average, without the noise that privacy may have added to it: leaving a client out does not change the
            noise.
        target: What is attributed: the predicted class's logit, its margin over the runner-up, its difference to the
            mean of all logits, or the true label's logit.
        layers: Layers to trace, by name; None for all.
        also: Kinds of layer that are traced only on request, see ``attribute``. Removing a client also changes
            BatchNorm's parameters and running statistics, and the embeddings.
        verify: How many of each input's first clients are checked by their exact removal and ranked by its effect; 0
            for none, ``"all"`` for the ground truth itself.

    Raises:
        ValueError: ``verify`` is neither a whole number from 0 nor ``"all"``, or the contributions to verify are not
            estimates of the exact removal.
    """

    layer_decay: float = 1.0
    weighting: Weighting = "leave_one_out"
    reference: Reference = "global"
    target: MethodTarget = "centered"
    layers: tuple[str, ...] | None = None
    also: tuple[str, ...] = ("batch_norm", "embedding")
    verify: Verify = 0

    def __post_init__(self) -> None:
        if self.verify != "all" and (type(self.verify) is not int or self.verify < 0):
            raise ValueError(f"verify must be a whole number of at least 0 or all, got {self.verify!r}")
        if self.verify and not self.estimates_removal:
            raise ValueError(
                f"verify={self.verify} checks what estimates the removal: layer_decay=1, weighting=leave_one_out, "
                f"reference=global, target=centered and layers=null; got {self.layer_decay:g}, {self.weighting}, "
                f"{self.reference}, {self.target} and {'null' if self.layers is None else list(self.layers)}"
            )

    @property
    def estimates_removal(self) -> bool:
        """Whether contributions are first-order estimates of the exact removal, in the same units.

        False where layers are chosen by name: a removal changes the whole model.
        """
        estimate = (self.layer_decay, self.weighting, self.reference, self.target, self.layers)
        return estimate == (1.0, "leave_one_out", "global", "centered", None)


def attribute_round(
    global_model: nn.Module,
    record: RoundRecord,
    inputs: Inputs,
    labels: Tensor,
    method: Method,
    *,
    by_layer: bool = False,
    compute: Compute = Compute(),
    removals: ExactRemovals | None = None,
) -> Attribution:
    """Attribute the predictions of a round's global model to the round's clients.

    Args:
        global_model: A model that holds ``record.global_weights``.
        record: The round.
        inputs: ``(B, ...)`` or a mapping of such tensors.
        labels: ``(B,)`` true classes; used where ``method.target`` is ``"label"``.
        method: How to attribute.
        by_layer: Whether to return what each layer adds, as in ``attribute``.
        compute: The device, and the bounds on memory.
        removals: Exact removals of this round and these inputs, to be shared with later questions: those computed here
            are kept in it.

    Raises:
        ModelMismatchError: As ``attribute``.
        LayerNotTraceableError: As ``attribute``.
        ValueError: ``by_layer`` with a method that verifies: an exact removal has no parts by layer.
    """
    if by_layer and method.verify:
        raise ValueError(f"by_layer=True divides estimates among layers, and verify={method.verify} replaces them")
    if removals is None:
        removals = ExactRemovals(global_model, record, inputs, compute)
    if method.verify == "all" and (exact := removals.attribution()) is not None:
        return exact  # an estimate would be of no use
    target: Target = labels if method.target == "label" else method.target
    (estimate,) = estimates(global_model, record, inputs, (target,), method, by_layer=by_layer, compute=compute)
    return verified(estimate, removals, method.verify)


def estimates(
    global_model: nn.Module,
    record: RoundRecord,
    inputs: Inputs,
    targets: Sequence[Target],
    method: Method,
    *,
    by_layer: bool,
    compute: Compute,
) -> list[Attribution]:
    """Return a method's unverified estimates for several targets, in one forward pass.

    Arguments and errors are those of ``attribute_round``.
    """
    return attribute_targets(
        global_model,
        record.clients,
        inputs,
        targets,
        layer_decay=method.layer_decay,
        client_weights=contribution_weights(record, method.weighting),
        reference={
            "none": None,
            "previous_global": record.previous_global,
            "global": record.average,
        }[method.reference],
        layers=method.layers,
        also=method.also,
        by_layer=by_layer,
        compute=compute,
    )


def contribution_weights(record: RoundRecord, weighting: Weighting) -> dict[str, float] | None:
    """Return each client's factor, or None where contributions are not weighted."""
    if weighting == "none":
        return None
    if weighting == "num_examples":
        return dict(record.client_weights)
    # A client that is the whole average cannot be left out of it; it is responsible whatever its weight.
    return {k: p / (1 - p) if p < 1 else 1.0 for k, p in record.client_weights.items()}
