"""Paths as people write them."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tracefl.errors import ConfigError


def expand(path: str | Path) -> Path:
    """Return a path with a leading ``~`` or ``~user`` replaced by that home folder.

    Raises:
        ConfigError: There is no such user.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ConfigError(f"{str(path)!r}: there is no user {Path(path).parts[0][1:]!r}; write the path out") from error


def remove(path: Path) -> None:
    """Delete a file, a link or a whole folder, where it is there; what a link leads to stays."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def usual_mode(path: Path) -> Iterator[None]:
    """Give a file that is written within the block the mode of any other new file, by the user's umask.

    safetensors makes its files readable by their owner alone, and a group could not share a run.
    """
    path.touch()
    mode = path.stat().st_mode & 0o777
    yield
    path.chmod(mode)
