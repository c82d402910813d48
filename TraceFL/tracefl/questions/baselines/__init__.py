"""Rules to compare provenance with: published ones, and trivial ones that any method must beat. Needs torch alone."""

from tracefl.questions.baselines.engine import artifact, removal, shapley
from tracefl.questions.baselines.evidence import Evidence, NotApplicableError, PastRound, Rule
from tracefl.questions.baselines.feddebug import feddebug
from tracefl.questions.baselines.flanders import flanders
from tracefl.questions.baselines.fldetector import fldetector
from tracefl.questions.baselines.flforensics import flforensics
from tracefl.questions.baselines.fltracer import fltracer
from tracefl.questions.baselines.krum import krum, multi_krum
from tracefl.questions.baselines.lfighter import lfighter
from tracefl.questions.baselines.outliers import cosine, update_norm
from tracefl.questions.baselines.shapfed import shapfed
from tracefl.questions.baselines.trivial import last_bias, most_examples, own_logit, random_client

RULES: dict[str, Rule] = {
    "artifact": artifact,
    "feddebug": feddebug,
    "flforensics": flforensics,
    "fltracer": fltracer,
    "fldetector": fldetector,
    "flanders": flanders,
    "lfighter": lfighter,
    "shapfed": shapfed,
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

NEED_HISTORY = frozenset({"flforensics", "fltracer", "fldetector", "flanders"})
"""Rules that look at the rounds before this one too."""

__all__ = ["NEED_HISTORY", "RULES", "Evidence", "NotApplicableError", "PastRound", "Rule", "feddebug"]
