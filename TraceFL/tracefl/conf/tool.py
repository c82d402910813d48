"""The grammar that all commands' arguments share, their help, and one-line errors for bad input.

A command takes a run or a folder first, then ``key=value`` and flags such as ``--json``, in any order.
"""

import os
import select
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NoReturn

from tracefl import __version__
from tracefl.common.imports import broken_library, missing_library
from tracefl.common.names import did_you_mean
from tracefl.common.paths import expand
from tracefl.common.words import wrapped
from tracefl.conf.key_text import configuration_keys
from tracefl.conf.readers import Reader, folder
from tracefl.conf.run_names import find_run, runs_folder
from tracefl.conf.slips import explain_slip, is_cut_off
from tracefl.errors import ConfigError, TraceFLError, one_line, plain

JSON = "--json"
HELP = ("--help", "-h")
VERSION = "--version"
_BROKEN_PIPE = 141  # exit status, as of a program that the signal ends


@dataclass(frozen=True)
class Grammar:
    """What a command takes.

    Attributes:
        usage: One line, which begins with the command's two words; for its help.
        keys: Its own keys, each with the reader of its value.
        flags: Its flags.
        groups: Groups and dotted keys of the configuration that are passed on; None for all of them.
        first: What comes first: a run, which must be given; a folder of runs or an index, which may be; or nothing.
        names: What may come first beside those, such as the names of the jobs.
        alone: The command does something without any argument, rather than print its help.
    """

    usage: str
    keys: Mapping[str, Reader] = field(default_factory=dict)
    flags: Collection[str] = (JSON,)
    groups: Collection[str] | None = ()
    first: Literal["RUN", "FOLDER", "INDEX"] | None = "RUN"
    names: Collection[str] = ()
    alone: bool = False

    @property
    def advice(self) -> str:
        """Where to look, for messages that have no better advice."""
        return f"see {' '.join(self.usage.split()[:2])} --help"


@dataclass
class Given:
    """What a command line gives.

    Attributes:
        word: What comes first, as it was written; None where nothing does.
        place: The run's folder, or the folder of runs, that comes first; None where none does.
        values: Key to its value, as its reader returns it.
        flags: The flags.
        overrides: Keys of the configuration, as given.
    """

    word: str | None = None
    place: Path | None = None
    values: dict[str, Any] = field(default_factory=dict)
    flags: set[str] = field(default_factory=set)
    overrides: list[str] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        """The run's folder."""
        assert self.place is not None
        return self.place

    def runs_folder(self, below: str = "") -> Path:
        """Return the folder of runs; where none is given the first that exists, and holds a folder where one is named.

        Raises:
            RecordError: There is none.
        """
        if self.place is None:
            self.place = runs_folder(below)
            _say_reading(self.place)
        return self.place

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value of a key, or the default where it is not given."""
        return self.values.get(key, default)

    def picked(self, *keys: str) -> list[str]:
        """Return which of the keys and flags are given."""
        return [key for key in keys if key in self.values or key in self.flags]


def read_arguments(arguments: Sequence[str], grammar: Grammar) -> Given:
    """Read a command's arguments.

    Raises:
        ConfigError: An argument is unknown, empty, given twice, illegal or missing.
        RecordError: A run is named that does not exist, or that is not the only one of its name.
    """
    given = Given()
    seen: dict[str, str] = {}
    keys, groups = grammar.keys, grammar.groups
    known = (*keys, *grammar.flags, *(groups or ()))
    for position, argument in enumerate(arguments):
        key, equals, text = argument.partition("=")
        is_own = bool(equals) and key in keys
        is_override = not is_own and bool(equals) and (groups is None or _is_of(key, groups))
        slip = _slip(arguments, position, [*keys, *(configuration_keys() if groups is None else groups)])
        if slip is not None:
            raise ConfigError(slip)
        if argument in grammar.flags:
            given.flags.add(argument)
        elif grammar.first is not None and given.word is None and not (is_own or is_override) and _is_place(argument):
            given.word = argument
        elif not equals or not (is_own or is_override):
            advice = did_you_mean(key, known) or f"; {grammar.advice}"
            raise ConfigError(f"unknown argument {argument!r}{advice}")
        elif key in seen:
            raise ConfigError(f"{key} is given twice: {seen[key]!r} and {text!r}; give it once")
        elif groups is None and is_override:
            seen[key] = text
            given.overrides.append(argument)
        elif not text.strip():
            raise ConfigError(f"{argument!r} has no value; {grammar.advice}")
        elif is_own:
            seen[key] = text
            given.values[key] = keys[key](key, text)
        else:
            seen[key] = text
            given.overrides.append(argument)
    if grammar.first == "RUN":
        if given.word is None:
            raise ConfigError(
                "no run is given; give its folder, the beginning of its name, or `last`, before all else; "
                f"{grammar.advice}"
            )
        given.place = find_run(given.word)
    elif grammar.first == "FOLDER" and given.word is not None:
        given.place = folder("FOLDER", given.word)
    return given


def _slip(arguments: Sequence[str], position: int, known: Collection[str]) -> str | None:
    """Return one line on a key that is not written as ``key=value``, or whose value the shell cut off; None else."""
    word, following = arguments[position], arguments[position + 1 : position + 2]
    bare = word.lstrip("-")
    name, equals, value = bare.partition("=")
    key = name.replace("-", "_")
    if not _is_of(key, known):
        return None
    has_value = any(not each.startswith("-") and not _is_of(each.partition("=")[0], known) for each in following)
    if equals and not value and has_value and word == key + equals:
        return explain_slip(arguments, position + 1, known)
    is_written_so = word == bare and name == key and (equals or not has_value)
    return None if is_written_so and not is_cut_off(word) else explain_slip(arguments, position, [*known, key])


def _is_place(argument: str) -> bool:
    """Whether an argument may name a run, a folder or an index, and is no flag and no misspelt key."""
    key, equals, _ = argument.partition("=")
    misspelt = equals and "/" not in argument and key.isidentifier() and not Path(argument).exists()
    return not argument.startswith("-") and not misspelt


def _is_of(key: str, groups: Collection[str]) -> bool:
    return key in groups or key.partition(".")[0] in groups


def run_tool(document: str | None, grammar: Grammar, run: Callable[[Given], None]) -> None:
    """Run a command: print its help or TraceFL's version where asked, and every error on one line.

    Bad input ends with exit status 2, any other of TraceFL's errors with its own.

    Args:
        document: The module's docstring: its help.
        grammar: What it takes.
        run: Does the work, given the arguments; imports what it needs itself, so that help does not wait for it.
    """
    arguments, help_text = sys.argv[1:], program_help(document or "", grammar.usage)
    with one_line_errors():
        if answer_at_once(arguments, help_text):
            sys.exit(0)
        if not arguments and not grammar.alone:
            say_help(help_text)
        given = read_arguments(arguments, grammar)
        _say_what_is_read(given)
        run(given)


def program_help(document: str, usage: str) -> str:
    """Return a program's docstring as a terminal shows it, in narrow lines and without backticks, and its usage.

    Args:
        document: The docstring; paragraphs that are indented stay as they are.
        usage: See ``Grammar``.
    """
    paragraphs = document.strip("\n").replace("``", "").split("\n\n")
    shown = [text if text.startswith(" ") else wrapped(text) for text in paragraphs]
    return "\n\n".join([*shown, f"{wrapped(f'usage: {usage}', '    ')}\n"])


def answer_at_once(arguments: Sequence[str], help_text: str) -> bool:
    """Print the help or the version where one is asked for, and return whether that was so."""
    if VERSION in arguments:
        sys.stdout.write(f"tracefl {__version__}\n")
    elif set(HELP) & set(arguments):
        sys.stdout.write(help_text)
    else:
        return False
    sys.stdout.flush()
    return True


def say_help(help_text: str) -> NoReturn:
    """Print the help of a command that was given nothing to do, and exit with status 2."""
    sys.stdout.write(help_text)
    sys.stdout.flush()
    sys.exit(2)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Print what stops a command on one line of stderr, and exit: with status 2 after bad input.

    Where nobody reads on, as in ``| head``, say nothing.
    """
    try:
        yield
        sys.stdout.flush()
    except ModuleNotFoundError as error:
        sys.stderr.write(f"tracefl: {missing_library(error)}\n")
        sys.exit(2)
    except Exception as error:
        broken = broken_library(error)
        if broken is None and not isinstance(error, TraceFLError | OSError):
            raise
        if isinstance(error, BrokenPipeError) and _nobody_reads():
            os._exit(_BROKEN_PIPE)  # at its own end Python would write again, and complain
        sys.stderr.write(f"tracefl: {broken or one_line(error)}\n")
        sys.exit(getattr(error, "exit_status", 2))


def _nobody_reads() -> bool:
    """Whether the program that stdout leads to is gone; a broken pipe may also be another."""
    poll = select.poll()
    poll.register(sys.stdout, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _say_what_is_read(given: Given) -> None:
    """Say on stderr which run is taken where it was not written out; on a terminal always, for libraries take time."""
    if given.place is not None and (sys.stderr.isatty() or given.place != expand(given.word or "")):
        _say_reading(given.place)


def _say_reading(place: Path) -> None:
    sys.stderr.write(f"tracefl: reading {plain(str(place))}\n")
    sys.stderr.flush()
