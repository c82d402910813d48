"""Rules to compare provenance with: published ones, and trivial ones that any method must beat. Needs torch alone."""

from tracefl.questions.baselines.engine import artifact, removal, shapley
from tracefl.questions.baselines.evidence import Evidence, NotApplicableError, Rule
from tracefl.questions.baselines.feddebug import feddebug
from tracefl.questions.baselines.krum import krum, multi_krum
from tracefl.questions.baselines.outliers import cosine, update_norm
from tracefl.questions.baselines.trivial import last_bias, most_examples, own_logit, random_client

RULES: dict[str, Rule] = {
    "artifact": artifact,
    "feddebug": feddebug,
    "krum": krum,
    "multi_krum": multi_krum,
    "update_norm": update_norm,
    "cosine": cosine,
    "shapley": shapley,
    "removal": removal,
    "own_logit": own_logit,
    "last_bias": last_bias,
    "most_examples": most_examples,
    "random": random_client,
}
"""Every rule by its name in configurations and tables, in the order in which tables show them."""

__all__ = ["RULES", "Evidence", "NotApplicableError", "Rule", "feddebug"]
