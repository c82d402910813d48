"""Faults of clients: what they are told to do wrong, and the truth that is kept of it. Imports torch alone."""

from tracefl.faults.injection import ClientChange, InjectedFault, Vocabulary, inject
from tracefl.faults.settings import FaultSettings, fault_words, read_fault
from tracefl.faults.trigger import Trigger
from tracefl.faults.truth import Fault

__all__ = [
    "ClientChange",
    "Fault",
    "FaultSettings",
    "InjectedFault",
    "Trigger",
    "Vocabulary",
    "fault_words",
    "inject",
    "read_fault",
]
