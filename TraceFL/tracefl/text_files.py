"""Text files replaced at one stroke."""

import os
from pathlib import Path


def write_atomically(path: Path, text: str) -> None:
    """Replace a file at one stroke: a reader, or a kill, sees the old one or the new one."""
    draft = path.with_name(f".{path.name}.partial")
    try:
        with draft.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        draft.unlink(missing_ok=True)
        raise
    draft.replace(path)
