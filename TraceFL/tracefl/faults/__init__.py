"""Faults of clients: what they are told to do wrong, and the truth that is kept of it. Imports torch alone."""

from tracefl.faults.settings import FaultSettings, fault_words, read_fault
from tracefl.faults.trigger import Trigger
from tracefl.faults.truth import Fault

__all__ = ["Fault", "FaultSettings", "Trigger", "fault_words", "read_fault"]
