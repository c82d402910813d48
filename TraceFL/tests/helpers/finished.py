"""What marks a run's folder, made by hand, as that of a complete run."""

import json

from tests.helpers.tables import whole_row
from tracefl.records.checksums import seal

HARDWARE = {"device": "cpu", "gpu": None, "processor": "x86_64", "cpus": 2, "torch_threads": 1, "system": "Linux"}


def whole_results(rounds=1, **more):
    """Return what results.json says at least."""
    return {
        "run": "run",
        "seed": 42,
        "rounds": rounds,
        "final": whole_row(round=rounds),
        "classes": ["0", "1"],
        "seconds": 9.0,
        "server_peak_memory_bytes": 2_000_000_000,
        "versions": {"tracefl": "0.1.0", "torch": "2.15.0"},
        "hardware": HARDWARE,
        **more,
    }


def finish(run, rounds, **more):
    """Write results.json, stubs of the rounds that are not there, and the checksums.

    Args:
        run: The folder.
        rounds: How many rounds the run has.
        more: What results.json has beside, or instead.
    """
    (run / "results.json").write_text(json.dumps(whole_results(rounds=rounds, **more)))
    for number in range(1, rounds + 1):
        place = run / "rounds" / f"{number:04d}"
        place.mkdir(parents=True, exist_ok=True)
        for name in ("round.json", "SHA256SUMS"):  # enough for what asks no round
            if not (place / name).exists():
                (place / name).write_text("")
    seal(run)
