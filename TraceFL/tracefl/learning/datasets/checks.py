"""Checks of configuration values that several modules share."""

from tracefl.errors import ConfigError


def check_positive_integer(key: str, value: object) -> None:
    """Raise a ``ConfigError`` naming ``key`` unless ``value`` is a whole number from 1."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigError(f"{key} is {value!r}; set it to a whole number from 1")
