"""Readers of the values that commands take: each returns a key's value from its text, or says what is wrong with it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

from tracefl.common.paths import expand
from tracefl.errors import ConfigError

Reader: TypeAlias = Callable[[str, str], Any]
"""Returns the value of a key, given the key and its text; raises a ConfigError for an illegal one."""

PICTURES = (".png", ".pdf", ".svg")


def text(key: str, given: str) -> str:
    """Return the text itself."""
    del key
    return given


def whole_number(key: str, given: str) -> int:
    """Return a whole number from 1."""
    if not given.isdecimal() or not int(given):
        raise ConfigError(f"{key} must be a whole number from 1, got {given!r}")
    return int(given)


def fraction(key: str, given: str) -> float:
    """Return a number in [0, 1]."""
    try:
        value = float(given)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise ConfigError(f"{key} must be a number in [0, 1], got {given!r}")
    return value


def clients(key: str, given: str) -> tuple[str, ...]:
    """Return clients' ids, ascending, each once."""
    numbers = [number.strip() for number in given.strip("[]").split(",")]
    if not all(number.isdecimal() for number in numbers):
        raise ConfigError(f"{key} must be the clients' numbers such as 3 or 3,7, got {given!r}")
    return tuple(map(str, sorted({int(number) for number in numbers})))


class OneOf:
    """A reader of one of the choices.

    Args:
        choices: Which.
    """

    def __init__(self, *choices: str) -> None:
        self.choices = choices

    def __call__(self, key: str, given: str) -> str:
        """Return the choice."""
        if given not in self.choices:
            raise ConfigError(f"{key} must be one of {', '.join(self.choices)}, got {given!r}")
        return given


class SomeOf:
    """A reader of one or more of the numbers, separated by commas.

    Args:
        numbers: Which.
    """

    def __init__(self, *numbers: int) -> None:
        self.choices = tuple(map(str, numbers))

    def __call__(self, key: str, given: str) -> list[int]:
        """Return the numbers."""
        numbers = [part.strip() for part in given.split(",")]
        if not set(numbers) <= set(self.choices):
            raise ConfigError(f"{key} must be among {', '.join(self.choices)}, got {given!r}")
        return [int(number) for number in numbers]


def file(*suffixes: str) -> Reader:
    """Return a reader of a file to write, whose name must end in one of the suffixes, if there are any."""

    def read(key: str, given: str) -> Path:
        path = expand(given)
        if suffixes and path.suffix.lower() not in suffixes:
            raise ConfigError(f"{key}={given!r}: give a file that ends in {', '.join(suffixes)}")
        if path.is_dir() or not path.parent.is_dir():
            raise ConfigError(f"{key}={given!r}: give a file in a folder that exists")
        return path

    return read


def folder(key: str, given: str) -> Path:
    """Return a folder that exists."""
    path = expand(given)
    if not path.is_dir():
        raise ConfigError(f"{key}={given!r} is not a folder; give that of the runs, such as logs/ or results/")
    return path
