"""Differential privacy: clipping and noise on the server, or DP-SGD on the clients with its accounting."""
