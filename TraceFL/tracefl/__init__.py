"""TraceFL: which clients of a federation are responsible for a prediction of its global model.

Method: Gill, Anwar and Gulzar, "TraceFL: Interpretability-Driven Debugging in Federated Learning via Neuron
Provenance", ICSE 2025 (arXiv 2312.13632).
"""

__version__ = "0.1.0"
