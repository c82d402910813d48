"""Paths as people write them."""

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
