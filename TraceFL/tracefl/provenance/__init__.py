"""The provenance engine: which clients' weights carried a prediction of the global model. Needs torch alone."""

from typing import TYPE_CHECKING

from tracefl.common.imports import on_demand

if TYPE_CHECKING:
    from tracefl.provenance.aggregation import Aggregation
    from tracefl.provenance.answer import Answer
    from tracefl.provenance.asking import who
    from tracefl.provenance.attribution import Attribution
    from tracefl.provenance.compute import Compute
    from tracefl.provenance.confusion import Confusions, confusions
    from tracefl.provenance.engine import attribute
    from tracefl.provenance.explanation import ClientPart, Explanation, Removal, explain
    from tracefl.provenance.layers import register_layer
    from tracefl.provenance.leave_one_out import Counterfactuals, counterfactuals
    from tracefl.provenance.method import attribute_round
    from tracefl.provenance.options import Method
    from tracefl.provenance.record import RoundRecord
    from tracefl.provenance.removal import logits_without, removal_effects, weights_without
    from tracefl.provenance.scoring import (
        LocalizationScores,
        TracedInput,
        score_inputs,
        select_inputs,
        select_mispredicted,
        select_of_each_class,
        spearman,
        summarize,
    )
    from tracefl.provenance.shapley import ShapleyValues, exact_shapley, sampled_shapley
    from tracefl.provenance.standing_out import StandOut, StandOuts, class_suspicions
    from tracefl.provenance.suspicion import SuspicionScores, score_suspicions

__getattr__ = on_demand(__name__, __file__)  # a method's options are read before torch is imported

__all__ = [
    "Aggregation",
    "Answer",
    "Attribution",
    "Counterfactuals",
    "ClientPart",
    "Compute",
    "Confusions",
    "Explanation",
    "LocalizationScores",
    "Method",
    "Removal",
    "RoundRecord",
    "ShapleyValues",
    "StandOut",
    "StandOuts",
    "SuspicionScores",
    "TracedInput",
    "attribute",
    "attribute_round",
    "class_suspicions",
    "confusions",
    "counterfactuals",
    "exact_shapley",
    "explain",
    "logits_without",
    "register_layer",
    "removal_effects",
    "sampled_shapley",
    "score_inputs",
    "score_suspicions",
    "select_inputs",
    "select_mispredicted",
    "select_of_each_class",
    "spearman",
    "summarize",
    "weights_without",
    "who",
]
