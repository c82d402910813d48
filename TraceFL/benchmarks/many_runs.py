"""Many runs in a folder: seconds of commands that read all of them, or look for one among them.

    python benchmarks/many_runs.py RUN [--runs 1000]

RUN is a finished run, which is copied with other seeds. Each command is timed whole, its start included.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tracefl.records.checksums import seal

COMMANDS = ("--version", "collect", "verify last", "trace last", "verify run-0017", "report no-such-run")


def main() -> None:
    """Copy the run, time each command once, and print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--runs", type=int, default=1000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        for number in range(options.runs):
            copy = Path(place) / "logs" / "default" / f"run-{number:04d}"
            shutil.copytree(options.run, copy)
            for name, said in (("config.yaml", r"^(seed: )\d+$"), ("results.json", r'^(\s*"seed": )\d+')):
                text = (copy / name).read_text()
                (copy / name).write_text(re.sub(said, rf"\g<1>{number}", text, flags=re.MULTILINE))
            seal(copy)
        sys.stdout.write(f"| of {options.runs} runs | s | exit status |\n|---|---|---|\n")
        for command in COMMANDS:
            began = time.perf_counter()
            done = subprocess.run(
                [sys.executable, "-m", "tracefl", *command.split()],
                cwd=place,
                capture_output=True,
                env=os.environ | {"TMPDIR": place},
            )
            seconds = time.perf_counter() - began
            sys.stdout.write(f"| `tracefl {command}` | {seconds:.1f} | {done.returncode} |\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
