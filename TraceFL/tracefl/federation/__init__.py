"""The clients and their server. Only this folder and Flower's two programs import Flower, only this folder Ray."""

import os

# The libraries read these when they are first imported. Telemetry is opt-in here. Where Flower starts Ray, it starts a
# cluster of the run's own and joins none on this machine. Ray keeps its hands off the visible GPUs, which it announces
# as its future default. The skipped log line, about workers that Flower ends, looks like a failure and is none.
for _variable, _value in {
    "FLWR_TELEMETRY_ENABLED": "0",
    "RAY_ADDRESS": "local",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS_SKIP_REGEX": "ClientAppActor.terminate failed",
}.items():
    os.environ.setdefault(_variable, _value)
