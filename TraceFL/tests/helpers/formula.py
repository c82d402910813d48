"""The formula with any factors, by the published settings where none are named: what tests of its parts ask for."""

from tracefl.provenance import Compute
from tracefl.provenance.engine import attribute_targets

PUBLISHED = {"target": "predicted", "weighting": "none", "reference": "none", "layer_decay": 0.9, "also": ()}
"""Arguments of ``attribute`` for the formula as its artifact computed it (Gill et al. 2025, Eq. 2 to 6)."""


def attribute(model, clients, inputs, **options):
    """Attribute one target, by default the predicted logit with decay 0.9, no factors, no reference and no ``also``."""
    given = {
        **{"target": "predicted", "layer_decay": 0.9, "factors": None, "reference": None, "base": None},
        **{"layers": None, "also": (), "by_layer": False, "check": True, "compute": Compute()},
        **options,
    }
    target = given.pop("target")
    (found,) = attribute_targets(model, clients, inputs, (target,), **given)
    return found
