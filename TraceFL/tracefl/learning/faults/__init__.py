"""Client faults: what faulty clients do wrong, and the ground truth that is stored. Imports torch alone."""

from tracefl.learning.faults.injection import ClientChange, InjectedFault, Vocabulary, inject
from tracefl.learning.faults.trigger import Trigger
from tracefl.learning.faults.truth import Fault

__all__ = [
    "ClientChange",
    "Fault",
    "InjectedFault",
    "Trigger",
    "Vocabulary",
    "inject",
]
