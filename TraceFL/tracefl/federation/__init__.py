"""The clients and their server. Flower is imported only here and in the two Flower programs, Ray only here."""

import os

# The libraries read these when they are first imported. Telemetry is opt-in here. If Flower starts Ray, it starts a new
# cluster for the run and never joins one on this machine. Ray leaves the list of visible GPUs alone, which it announces
# as its future default. The skipped log line, about workers that Flower ends, looks like a failure but is not one.
for _variable, _value in {
    "FLWR_TELEMETRY_ENABLED": "0",
    "RAY_ADDRESS": "local",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS_SKIP_REGEX": "ClientAppActor.terminate failed",
}.items():
    os.environ.setdefault(_variable, _value)
