"""The grammar that all programs' arguments share, their help, and one-line errors for bad input.

A program takes a folder first, then ``key=value`` and flags such as ``--json``, in any order.
"""

import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from tracefl.common.imports import missing_library
from tracefl.common.names import did_you_mean
from tracefl.common.paths import expand
from tracefl.errors import ConfigError, RecordError, TraceFLError, one_line

Reader: TypeAlias = Callable[[str, str], Any]
"""Returns the value of a key, given the key and its text; raises a ConfigError for an illegal one."""

JSON = "--json"
PICTURES = (".png", ".pdf", ".svg")


@dataclass
class Given:
    """What a command line gives.

    Attributes:
        words: Positional arguments, such as a folder.
        values: Key to its value, as its reader returns it.
        flags: The flags.
        overrides: Keys of the configuration, as given.
    """

    words: list[str] = field(default_factory=list)
    values: dict[str, Any] = field(default_factory=dict)
    flags: set[str] = field(default_factory=set)
    overrides: list[str] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        """The folder that comes first."""
        return expand(self.words[0])

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value of a key, or the default where it is not given."""
        return self.values.get(key, default)

    def picked(self, *keys: str) -> list[str]:
        """Return which of the keys and flags are given."""
        return [key for key in keys if key in self.values or key in self.flags]


def read_arguments(
    arguments: Iterable[str],
    usage: str,
    keys: Mapping[str, Reader],
    *,
    flags: Collection[str] = (),
    groups: Collection[str] | None = (),
    required: Sequence[str] = (),
    words: int = 1,
) -> Given:
    """Read a program's arguments.

    Args:
        arguments: As on the command line.
        usage: One line, for messages that have no better advice.
        keys: The program's own keys, each with the reader of its value.
        flags: Its flags.
        groups: Groups and dotted keys of the configuration that are passed on; None for all of them.
        required: Keys that must be given.
        words: Maximum number of positional arguments.

    Raises:
        ConfigError: An argument is unknown, empty, given twice, illegal or missing.
    """
    given = Given()
    seen: dict[str, str] = {}
    known = (*keys, *flags, *(groups or ()))
    for argument in arguments:
        key, equals, text = argument.partition("=")
        is_own = key in keys
        is_override = not is_own and bool(equals) and (groups is None or _is_of(key, groups))
        if argument in flags:
            given.flags.add(argument)
        elif not (is_own or is_override or argument.startswith("-")) and len(given.words) < words:
            given.words.append(argument)
        elif not equals or not (is_own or is_override):
            raise ConfigError(f"unknown argument {argument!r}{did_you_mean(key, known) or f'; usage: {usage}'}")
        elif groups is None and is_override:
            given.overrides.append(argument)
        elif key in seen:
            raise ConfigError(f"{key} is given twice: {seen[key]!r} and {text!r}; give it once")
        elif not text.strip():
            raise ConfigError(f"{argument!r} has no value; usage: {usage}")
        elif is_own:
            seen[key] = text
            given.values[key] = keys[key](key, text)
        else:
            seen[key] = text
            given.overrides.append(argument)
    missing = [key for key in required if key not in seen]
    if missing:
        raise ConfigError(f"{missing[0]}= is missing; usage: {usage}")
    return given


def read_run_arguments(
    arguments: Iterable[str],
    usage: str,
    keys: Mapping[str, Reader],
    *,
    groups: Collection[str] = (),
    required: Sequence[str] = (),
    flags: Collection[str] = (JSON,),
) -> Given:
    """Read the arguments of a program about one run: the run's folder comes first.

    Raises:
        ConfigError: As ``read_arguments``, or no folder is given.
        RecordError: The folder does not exist.
    """
    given = read_arguments(arguments, usage, keys, flags=flags, groups=groups, required=required)
    if not given.words:
        raise ConfigError(f"no run's folder is given; usage: {usage}")
    if not given.folder.is_dir():
        raise RecordError(f"{given.words[0]!r} is no run's folder; give one below log_dir, such as logs/default/RUN")
    return given


def _is_of(key: str, groups: Collection[str]) -> bool:
    return key in groups or key.partition(".")[0] in groups


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


def one_of(*choices: str) -> Reader:
    """Return a reader of one of the choices."""

    def read(key: str, given: str) -> str:
        if given not in choices:
            raise ConfigError(f"{key} must be one of {', '.join(choices)}, got {given!r}")
        return given

    return read


def some_of(*choices: int) -> Reader:
    """Return a reader of one or more of the numbers, separated by commas."""

    def read(key: str, given: str) -> list[int]:
        numbers = [part.strip() for part in given.split(",")]
        if not set(numbers) <= set(map(str, choices)):
            raise ConfigError(f"{key} must be among {', '.join(map(str, choices))}, got {given!r}")
        return [int(number) for number in numbers]

    return read


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


def run_tool(document: str | None, usage: str, run: Callable[[list[str]], None]) -> None:
    """Run a program: print help on request or without arguments, and every error on one line.

    Bad input ends with exit status 2, any other of TraceFL's errors with its own.

    Args:
        document: The module's docstring.
        usage: One line.
        run: Does the work, given the arguments; imports what it needs itself, so that help does not wait for it.
    """
    arguments = sys.argv[1:]
    if not arguments or {"-h", "--help"} & set(arguments):
        sys.stdout.write(f"{document}\nusage: {usage}\n")
        sys.exit(0 if arguments else 2)
    try:
        run(arguments)
    except ModuleNotFoundError as error:
        sys.stderr.write(f"tracefl: {missing_library(error)}\n")
        sys.exit(2)
    except (TraceFLError, OSError) as error:
        sys.stderr.write(f"tracefl: {one_line(error)}\n")
        sys.exit(getattr(error, "exit_status", 2))
