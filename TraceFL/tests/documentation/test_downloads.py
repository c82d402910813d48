"""How much the Makefile's targets fetch, as the lock's head says and make prints."""

import re
import subprocess

from documentation.downloads import EXTRAS, LOCK, bytes_to_fetch, header

PYLOCK = {
    "packages": [
        {"name": "torch", "wheels": [{"size": 600_000_000}]},
        {"name": "nvidia-cublas", "wheels": [{"size": 300_000_000}]},
        {"name": "rich", "wheels": [{"size": 40_000_000}, {"size": 7}], "sdist": {"size": 9}},
        {"name": "antlr4-python3-runtime", "sdist": {"size": 60_000_000}},
    ]
}


def test_a_package_is_fetched_once_as_a_wheel_where_there_is_one():
    assert bytes_to_fetch(PYLOCK) == (1_000_000_000, 900_000_000)
    assert header("run", PYLOCK).startswith("# make run: fetches 1.0 GB, 0.9 GB of it torch and CUDA (")


def test_make_says_what_it_fetches_before_it_does():
    dry = ["make", "--no-print-directory", "--dry-run", "--always-make", "PYTHON=python3"]
    for target in EXTRAS:
        (said,) = re.findall(rf"^# (make {target}: fetches [\d.]+ GB, .*)$", LOCK.read_text(), re.MULTILINE)
        done = subprocess.run([*dry, target], cwd=LOCK.parent, check=True, capture_output=True, text=True)
        first = done.stdout.splitlines()[0]
        assert first.startswith("sed ")
        printed = subprocess.run(first, shell=True, cwd=LOCK.parent, check=True, capture_output=True, text=True)
        assert printed.stdout == f"{said}\n"
