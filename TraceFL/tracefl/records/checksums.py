"""Checksums of a round's files.

They are kept as ``SHA256SUMS`` in the layout of ``sha256sum``: ``sha256sum -c --ignore-missing SHA256SUMS`` says the
same as this module.
"""

import hashlib
from pathlib import Path

from tracefl.errors import RecordError

CHECKSUMS = "SHA256SUMS"


def write_checksums(folder: Path) -> None:
    """Write the SHA-256 of every file below a folder into its ``SHA256SUMS``."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != CHECKSUMS)
    lines = [f"{_sha256(path)}  {path.relative_to(folder).as_posix()}\n" for path in files]
    (folder / CHECKSUMS).write_text("".join(lines))


def check_file(folder: Path, name: str) -> None:
    """Compare a file with its checksum.

    Raises:
        RecordError: It is missing, was changed since it was written, or has no checksum.
    """
    path = folder / name
    try:
        lines = (folder / CHECKSUMS).read_text().splitlines()
        kept = {line[66:]: line[:64] for line in lines}.get(name)
        found = _sha256(path)
    except (FileNotFoundError, UnicodeDecodeError) as error:  # not a disk that fails for a moment
        raise RecordError(f"{path} cannot be checked ({error}); the round is damaged, use another") from error
    if found != kept:
        raise RecordError(f"{path} is damaged: its checksum is not the one in {CHECKSUMS}; use another round")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
