"""Whether a change of the code changes a number: checksums of what five small runs leave.

    python TraceFL/benchmarks/checksums.py DATA [FOLDER] > before.txt

Runs digits, MNIST (DATA/mnist), a GPT on DBpedia (DATA/dbpedia_14), a run with a faulty client and one with
differential privacy, below FOLDER (a temporary one by default). Prints the SHA-256 of each run's rounds.csv,
provenance.csv and suspects.csv, without their columns of seconds, and of all the weights it stores. The same lines
before and after a change, on one machine: no number has changed. Another machine rounds differently.
"""

import argparse
import csv
import hashlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

RUNS = {
    "digits": (),
    "mnist": ("dataset=mnist", "dataset.path={data}/mnist", "dataset.max_examples_per_client=256"),
    "gpt": (
        "model=gpt",
        "model.config.n_layer=2",
        "model.config.n_embd=64",
        "model.config.n_head=2",
        "dataset=dbpedia_14",
        "dataset.path={data}/dbpedia_14",
        "dataset.max_tokens=32",
        "dataset.max_examples_per_client=256",
        "client.lr=0.002",
    ),
    "faulty": ("fault=label_flip", "provenance=fault", "baselines=fast", "dirichlet_alpha=1.0"),
    "privacy": ("privacy=central", "privacy.noise_multiplier=0.01", "provenance=paper", "strategy=fedprox"),
}
"""Overrides of each run, beyond ``COMMON``."""
COMMON = ("store=all", "model.pretrained=false", "dataset.max_server_examples=512", "exp_key=checksums")


def main() -> None:
    """Run the five configurations and print their checksums."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("folder", type=Path, nargs="?", metavar="FOLDER")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        for name, overrides in RUNS.items():
            given = [override.format(data=arguments.data.resolve()) for override in (*COMMON, *overrides)]
            command = [sys.executable, "-m", "tracefl", "run", f"log_dir={folder}", f"run_name={name}", *given]
            subprocess.run(command, check=True, stdout=sys.stderr)
            for what, digest in checksums(folder / "checksums" / name):
                sys.stdout.write(f"{name:8} {what:14} {digest}\n")
                sys.stdout.flush()


def checksums(run: Path) -> Iterator[tuple[str, str]]:
    """Yield what a run's folder holds, in words, and its SHA-256."""
    for table in ("rounds.csv", "provenance.csv", "suspects.csv"):
        if (run / table).exists():
            yield table, hashlib.sha256(_untimed(run / table).encode()).hexdigest()
    weights = sorted((run / "rounds").rglob("*.safetensors"))
    digest = hashlib.sha256()
    for file in weights:
        digest.update(str(file.relative_to(run)).encode() + file.read_bytes())
    yield f"{len(weights)} weights", digest.hexdigest()


def _untimed(table: Path) -> str:
    with table.open() as file:
        rows = list(csv.DictReader(file))
    return "\n".join(str({key: value for key, value in row.items() if not key.endswith("seconds")}) for row in rows)


if __name__ == "__main__":
    main()
