"""What Flower starts for a client: see ``tracefl.federation.client``."""

from tracefl.federation.client import app

__all__ = ["app"]
