"""TraceFL: which clients of a federation are responsible for a prediction of its global model.

Method: Gill, Anwar and Gulzar, "TraceFL: Interpretability-Driven Debugging in Federated Learning via Neuron
Provenance", ICSE 2025 (arXiv 2312.13632).
"""

__version__ = "0.1.0"

from typing import TYPE_CHECKING

from tracefl.common.imports import on_demand

if TYPE_CHECKING:
    from tracefl.experiment.launching import run
    from tracefl.experiment.opened import Run, load
    from tracefl.provenance.answer import Answer
    from tracefl.provenance.asking import who

__getattr__ = on_demand(__name__, __file__)  # so that importing the package stays cheap

__all__ = ["Answer", "Run", "load", "run", "who"]
