"""Writes into requirements.lock how much ``make run`` and ``make test`` fetch: ``python -m documentation.downloads``.

``make lock`` calls it, so that what the Makefile says before it fetches anything is about the versions of the lock.
"""

import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

TRACEFL = Path(__file__).parents[1]
LOCK = TRACEFL.parent / "requirements.lock"
EXTRAS = {"run": ("run", "text", "privacy", "wandb"), "test": ("dev",)}
"""Target of the Makefile to the extras that it installs."""


def resolve(extras: tuple[str, ...]) -> dict[str, Any]:
    """Return, from uv, the files that pip would fetch on this machine for the lock's versions, as a pylock.toml."""
    asked = [word for extra in extras for word in ("--extra", extra)]
    command = [
        sys.executable,
        "-m",
        "uv",
        "pip",
        "compile",
        "pyproject.toml",
        *asked,
        "--constraint",
        str(LOCK),
        "--format",
        "pylock.toml",
    ]
    done = subprocess.run([*command, "--quiet"], cwd=TRACEFL, check=True, capture_output=True, text=True)
    return tomllib.loads(done.stdout)


def bytes_to_fetch(pylock: Mapping[str, Any]) -> tuple[int, int]:
    """Return the size of all files, and that of torch with NVIDIA's libraries for it."""
    sizes = {
        package["name"]: (package["wheels"][0] if "wheels" in package else package["sdist"])["size"]
        for package in pylock["packages"]
    }
    gpu = sum(size for name, size in sizes.items() if name.startswith(("torch", "nvidia-", "cuda-", "triton")))
    return sum(sizes.values()), gpu


def header(target: str, pylock: Mapping[str, Any]) -> str:
    """Return the line of the lock that ``make`` prints before it installs."""
    total, gpu = bytes_to_fetch(pylock)
    where = f"{sys.platform}, Python {sys.version_info.major}.{sys.version_info.minor}"
    return f"# make {target}: fetches {total / 1e9:.1f} GB, {gpu / 1e9:.1f} GB of it torch and CUDA ({where})\n"


if __name__ == "__main__":
    kept = [line for line in LOCK.read_text().splitlines(keepends=True) if not line.startswith("# make ")]
    LOCK.write_text("".join([*(header(target, resolve(extras)) for target, extras in EXTRAS.items()), *kept]))
