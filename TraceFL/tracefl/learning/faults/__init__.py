"""Client faults: what faulty clients do wrong, and the ground truth that is stored. Imports torch alone."""

from typing import TYPE_CHECKING

from tracefl.common.imports import on_demand

if TYPE_CHECKING:
    from tracefl.learning.faults.injection import ClientChange, InjectedFault, Vocabulary, inject
    from tracefl.learning.faults.trigger import Trigger
    from tracefl.learning.faults.truth import Fault

__getattr__ = on_demand(__name__, __file__)  # the settings are read before torch is imported

__all__ = [
    "ClientChange",
    "Fault",
    "InjectedFault",
    "Trigger",
    "Vocabulary",
    "inject",
]
