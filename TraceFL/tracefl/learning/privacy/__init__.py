"""Differential privacy: clipping and noise on the server, or DP-SGD on the clients with its accounting."""

from tracefl.learning.privacy.settings import PRIVACY_TRACES, PrivacySettings

__all__ = ["PRIVACY_TRACES", "PrivacySettings"]
