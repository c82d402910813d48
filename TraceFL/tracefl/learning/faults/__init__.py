"""Faults of clients: what they are told to do wrong, and the truth that is kept of it. Imports torch alone."""

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
