"""The options of an attribution, which are read and checked before torch is imported."""

from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias, get_args

Precision: TypeAlias = Literal["float32", "bf16"]
Verify: TypeAlias = int | Literal["all"]
Weighting = Literal["none", "num_examples", "leave_one_out"]
Reference = Literal["none", "previous_global", "global"]
MethodTarget = Literal["predicted", "margin", "centered", "label"]

WEIGHTINGS, REFERENCES, METHOD_TARGETS = get_args(Weighting), get_args(Reference), get_args(MethodTarget)


def gamed(target: str) -> str:
    """Return how a client games a target without changing what its own model predicts; empty where none is known.

    The exact effect of leaving it out stays the same when a constant is added to all of a client's logits, and so do
    differences of logits.
    """
    if target not in ("predicted", "label"):
        return ""
    return (
        f"a client that adds a constant to all its logits, which changes no prediction, chooses its own rank with "
        f"target={target}: centered and margin are proof against that"
    )


@dataclass(frozen=True)
class Method:
    """The options of an attribution. The defaults are the preset ``removal``.

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
            for none, ``"all"`` for the ground truth itself. None for what is best for the round's number of clients
            (budget.py) where the removal is what is estimated, else none: all of a few clients, or those with the
            largest mean estimates for all inputs, and then each input's first two.
        max_update_norm: Where clients are left out exactly, how many medians of the round's updates a client's may be
            long before all are: an estimate says least of who moved the model farthest. None for no such bound.
        max_estimate_error: Likewise, how far the estimates may miss the exact effects of those that were left out, as
            a share of these (both root mean squares). None for no such bound.

    Raises:
        ValueError: ``verify`` is neither a whole number from 0 nor ``"all"``, a bound is too low, or the contributions
            to verify are not estimates of the exact removal.
    """

    layer_decay: float = 1.0
    weighting: Weighting = "leave_one_out"
    reference: Reference = "global"
    target: MethodTarget = "centered"
    layers: tuple[str, ...] | None = None
    also: tuple[str, ...] = ("batch_norm", "embedding")
    verify: Verify | None = None
    max_update_norm: float | None = 3.0
    max_estimate_error: float | None = 1.0

    def __post_init__(self) -> None:
        if self.verify not in ("all", None) and (type(self.verify) is not int or self.verify < 0):
            raise ValueError(f"verify must be a whole number of at least 0 or all, got {self.verify!r}")
        if self.max_update_norm is not None and not self.max_update_norm >= 1:
            raise ValueError(f"max_update_norm must be at least 1 median or None, got {self.max_update_norm!r}")
        if self.max_estimate_error is not None and not self.max_estimate_error > 0:
            raise ValueError(f"max_estimate_error must be above 0 or None, got {self.max_estimate_error!r}")
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

    @property
    def weakness(self) -> str:
        """How a client can change what is said of it and not what its own model predicts; empty where it cannot."""
        return gamed(self.target)

    @staticmethod
    def checked(given: Any) -> "Method":
        """Return a method that a caller gave.

        Raises:
            TypeError: It is something else, such as a preset's name.
        """
        if isinstance(given, Method):
            return given
        got = repr(given) if isinstance(given, str) else type(given).__name__
        raise TypeError(
            f"method must be a tracefl.provenance.Method, got {got}: give Method(), the preset removal, or "
            "Method.unlike(), Method.artifact(), Method.paper() or Method.leave_one_out()"
        )

    @classmethod
    def artifact(cls) -> "Method":
        """Return the published formula as the artifact computed it, without p_k (Gill et al. 2025, Eq. 2 to 7)."""
        return cls(layer_decay=0.9, weighting="none", reference="none", target="predicted", also=())

    @classmethod
    def paper(cls) -> "Method":
        """Return the published formula as printed, contributions weighted by p_k (Gill et al. 2025, Eq. 6)."""
        return replace(cls.artifact(), weighting="num_examples")

    @classmethod
    def unlike(cls) -> "Method":
        """Return what asks whose weights are unlike the others' in what led to a misprediction, later layers most."""
        return cls(layer_decay=0.5, weighting="none", also=())

    @classmethod
    def leave_one_out(cls) -> "Method":
        """Return the exact removal of every client, at one forward pass each."""
        return cls(verify="all")
