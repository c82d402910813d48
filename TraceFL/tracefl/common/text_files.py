"""Atomic changes of text files: whatever happens, a reader sees the old file or the new one."""

import os
import shutil
from pathlib import Path


def write_atomically(path: Path, text: str | bytes) -> None:
    """Replace a file atomically.

    Raises:
        OSError: The file cannot be written; an existing one is unchanged.
    """
    draft = _draft(path)
    draft.unlink(missing_ok=True)
    _finish(draft, path, text if isinstance(text, bytes) else encoded(text))


def append_atomically(path: Path, heading: str, text: str) -> None:
    """Append to a file atomically; a new file begins with the heading.

    Raises:
        OSError: It cannot be written; the old file is unchanged.
    """
    draft = _draft(path)
    draft.unlink(missing_ok=True)
    if path.exists():
        shutil.copyfile(path, draft)  # by the kernel: a long file does not pass through this process
        heading = ""
    _finish(draft, path, encoded(heading + text))


def encoded(text: str) -> bytes:
    """Return a text as it is written: UTF-8 in every locale."""
    return text.encode(errors="backslashreplace")


def _finish(draft: Path, path: Path, data: bytes) -> None:
    try:
        with draft.open("ab") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        draft.unlink(missing_ok=True)
        error.filename = str(path)  # which the system leaves out where a disk is full
        raise
    draft.replace(path)


def _draft(path: Path) -> Path:
    return path.with_name(f".{path.name}.partial")
