"""The clients and their server: Flower and Ray, which nothing outside this folder and its programs imports."""

import os

# Telemetry is opt-in here. These are read when the libraries are first imported, so they are set before any of them.
# Ray leaves the visible GPUs alone, as it announces to do by default; its line about workers that Flower ends with a
# simulation reads like a failure and is none. Where Flower starts Ray, it is one of the run's own, and no cluster that
# happens to run on this machine.
for _variable, _value in {
    "FLWR_TELEMETRY_ENABLED": "0",
    "RAY_ADDRESS": "local",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS_SKIP_REGEX": "ClientAppActor.terminate failed",
}.items():
    os.environ.setdefault(_variable, _value)
