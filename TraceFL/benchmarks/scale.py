"""A run with 10, 100 and 1,000 clients: start-up, seconds a round, the server's memory.

    python benchmarks/scale.py dataset=dbpedia_14 dataset.path=DATA/dbpedia_14 [--clients 10 100 1000] [--rounds 15]

Every run is the command line's own, of a small GPT with ``batch_size=4``, so that a thousand clients hold full batches
of 8,000 texts. Other keys are passed on. Memory is the server process's peak, once after round 2 and once at the end.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from datetime import datetime
from pathlib import Path

RUN = (
    "model=gpt",
    "model.pretrained=false",
    "model.config.n_layer=2",
    "model.config.n_embd=64",
    "model.config.n_head=2",
    "batch_size=4",
    "client.epochs=1",
    "client.lr=0.001",
    "dataset.min_examples_per_label=1",
    "dataset.max_examples_per_client=64",
    "run_name=run",
)


def measure(clients: int, a_round: int, rounds: int, keys: list[str]) -> dict[str, float | str]:
    """Run once and return what its output and its folder say."""
    with tempfile.TemporaryDirectory() as folder:
        counts = (f"num_clients={clients}", f"clients_per_round={a_round}", f"num_rounds={rounds}", f"log_dir={folder}")
        command = [sys.executable, "-m", "tracefl", "run", *RUN, *keys, *counts]
        began = datetime.now()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        run = Path(folder) / "default" / "run"
        log = (run / "run.log").read_text()
        first = next(line for line in log.splitlines() if "round=1 clients" in line)
        start = (datetime.strptime(first[:23], "%Y-%m-%d %H:%M:%S,%f") - began).total_seconds()
        memory = re.findall(r"memory=([\d.]+ \wB)", log)
        results = json.loads((run / "results.json").read_text())
        status = json.loads((run / "status.json").read_text())
        return {
            "clients": clients,
            "a round": a_round,
            "start, s": round(start, 1),
            "s a round": round(status["seconds_a_round"], 2),
            "memory after round 2": memory[1],
            "at the end": memory[-1],
            "accuracy": round(results["final"]["global_accuracy"], 3),
            "localization": round(results["mean"]["localization_accuracy"], 3),
            "chance": round(results["mean"]["chance_accuracy"], 3),
        }


def main() -> None:
    """Measure each number of clients and print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--clients", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--a-round", type=int, nargs="+", default=[10, 50], help="50 only where there are as many")
    parser.add_argument("--rounds", type=int, default=15)
    options, keys = parser.parse_known_args()
    rows = []
    for clients in options.clients:
        for a_round in options.a_round:
            if a_round <= clients:
                rows.append(measure(clients, a_round, options.rounds, keys))
                sys.stdout.write(json.dumps(rows[-1]) + "\n")
                sys.stdout.flush()
    sys.stdout.write("| " + " | ".join(rows[0]) + " |\n" + "|---" * len(rows[0]) + "|\n")
    for row in rows:
        sys.stdout.write("| " + " | ".join(map(str, row.values())) + " |\n")


if __name__ == "__main__":
    main()
