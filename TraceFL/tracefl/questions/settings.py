"""How and when a round is traced: the configuration group `provenance`, checked."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from tracefl.conf.rules import ABOVE_0, FLAG, Rule, check_group, one_of, whole
from tracefl.errors import ConfigError
from tracefl.learning.training import PRECISIONS
from tracefl.provenance import Method
from tracefl.provenance.engine import Precision
from tracefl.provenance.layers import OPTIONS
from tracefl.provenance.method import METHOD_TARGETS, REFERENCES, WEIGHTINGS
from tracefl.questions.baselines import RULES

INPUTS = ("correct", "mispredicted", "all")

_VERIFY = Rule(
    (int, str),
    lambda v: v == "all" or (isinstance(v, int) and v >= 0),
    "a whole number of at least 0 or all",
    optional=True,
)

PROVENANCE_RULES = {
    "provenance.enabled": FLAG,
    "provenance.layer_decay": Rule((int, float), lambda v: 0 < v <= 1, "a number in (0, 1]"),
    "provenance.weighting": one_of(WEIGHTINGS),
    "provenance.reference": one_of(REFERENCES),
    "provenance.target": one_of(METHOD_TARGETS),
    "provenance.inputs_per_label": whole(1),
    "provenance.inputs": dataclasses.replace(one_of(INPUTS), optional=True),
    "provenance.max_inputs": whole(1),
    "provenance.every": whole(1),
    "provenance.counterfactual": FLAG,
    "provenance.verify": _VERIFY,
    "provenance.batch_size": whole(1),
    "provenance.memory_budget": ABOVE_0,
    "provenance.precision": one_of(PRECISIONS),
}
"""What each key of the group may hold."""

_VERIFIED = 3  # first clients of an input that are checked where nothing else is asked for; README, "What to use when"

NO_MISPREDICTIONS = (
    "look at mispredictions, and none are traced by themselves: that takes provenance other than off, and a fault such "
    "as fault=label_flip or provenance.inputs=mispredicted"
)


@dataclass(frozen=True)
class ProvenanceSettings:
    """How and when a round is traced.

    Attributes:
        method: What is computed.
        inputs: ``"correct"`` predictions, ``"mispredicted"`` ones or ``"all"``, both as the server can tell them apart
            without knowing of a fault; None for mispredicted ones in a run with faulty clients, else correct ones.
        inputs_per_label: Correctly predicted server inputs of each held label, at least 1.
        max_inputs: Mispredicted server inputs, at least 1.
        every: Rounds between two traced rounds, at least 1.
        counterfactual: Check the answers against each client's exact removal.
        batch_size: Inputs in one forward, at least 1.
        memory_budget: Bytes that an attribution may hold beyond the model, at least 1.
        precision: Of the products' factors.
    """

    method: Method
    inputs: Literal["correct", "mispredicted", "all"] | None
    inputs_per_label: int
    max_inputs: int
    every: int
    counterfactual: bool
    batch_size: int
    memory_budget: int
    precision: Precision


def read_provenance(group: Mapping[str, Any]) -> ProvenanceSettings | None:
    """Turn the group ``provenance`` into settings, None where it is off.

    Raises:
        ConfigError: A value is illegal.
    """
    check_group(PROVENANCE_RULES, "provenance", group)
    layers = group["layers"]
    if layers is not None and not (isinstance(layers, list) and layers and all(isinstance(n, str) for n in layers)):
        raise ConfigError(f"provenance.layers must be a list of layer names such as [fc], or null, got {layers!r}")
    also = group.get("also", [])  # folders written before the key existed traced nothing more
    if not isinstance(also, list) or not set(map(str, also)) <= set(OPTIONS):
        raise ConfigError(f"provenance.also must be a list of {', '.join(OPTIONS)}, or [], got {also!r}")
    if not group["enabled"]:
        return None
    estimate = Method(
        layer_decay=float(group["layer_decay"]),
        weighting=group["weighting"],
        reference=group["reference"],
        target=group["target"],
        layers=None if layers is None else tuple(layers),
        also=tuple(also),
    )
    verify = group.get("verify", 0)  # likewise
    if verify is None:
        verify = _VERIFIED if estimate.estimates_removal else 0
    try:
        method = replace(estimate, verify=verify)
    except ValueError as error:
        raise ConfigError(f"provenance.{error}") from error
    return ProvenanceSettings(
        method=method,
        inputs=group.get("inputs"),  # folders written before the key existed traced correct ones
        inputs_per_label=group["inputs_per_label"],
        max_inputs=group.get("max_inputs", 50),
        every=group["every"],
        counterfactual=group["counterfactual"],
        batch_size=group["batch_size"],
        memory_budget=int(group["memory_budget"] * 2**30),
        precision=group["precision"],
    )


def read_baselines(group: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the rules in the group ``baselines``.

    Raises:
        ConfigError: A rule is unknown, or named twice.
    """
    rules = group["rules"]
    if not isinstance(rules, list) or not set(map(str, rules)) <= set(RULES) or len(set(rules)) < len(rules):
        raise ConfigError(f"baselines.rules must be a list of {', '.join(RULES)}, or [], got {rules!r}")
    return tuple(rules)
