"""What can go wrong, by what the user can do about it.

Every message says what, the value received and what to do, with the configuration key; the command line prints it on
one line and ends with status 2.
"""

import re
from dataclasses import dataclass

# C0 and C1 controls, escape sequences among them; marks that turn the direction of writing; lone surrogates.
_OBEYED = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


@dataclass(frozen=True)
class Failure:
    """What stopped a run of a sweep, as it is returned to the command.

    Attributes:
        message: One line.
        exit_status: The status that the run alone would have ended with.
    """

    message: str
    exit_status: int


class TraceFLError(Exception):
    """Base of every error that TraceFL raises on purpose; the command line ends with its ``exit_status``.

    Args:
        message: One line: what, the value received and what to do.
        exit_status: In place of the class's own.
    """

    exit_status = 2

    def __init__(self, message: str, exit_status: int | None = None) -> None:
        super().__init__(message)
        if exit_status is not None:
            self.exit_status = exit_status


class ConfigError(TraceFLError, ValueError):
    """A configuration key is unknown, has an illegal value, or does not go with another."""


class DataError(TraceFLError, ValueError):
    """A data set cannot be found, read or partitioned as asked."""


class ModelMismatchError(TraceFLError, ValueError):
    """A client's parameters do not fit the global model: missing, of another shape, or not finite."""


class LayerNotTraceableError(TraceFLError, ValueError):
    """A layer named for tracing does not exist, or nothing of it can be traced."""


class CheckError(TraceFLError, RuntimeError):
    """An answer about a model's predictions did not hold when it was checked, and is not given."""


class LibraryError(TraceFLError):
    """A library is installed, and fails when it is imported."""


class RoundFailedError(TraceFLError, RuntimeError):
    """Too few clients answered for a round to count; the configuration was legal."""

    exit_status = 1


class ClusterLostError(RoundFailedError):
    """The processes that the clients train in are gone, and with them the round."""


class RunStopped(TraceFLError, RuntimeError):  # noqa: N818 - nothing went wrong
    """A signal asked the run to stop, and it did so between two rounds; ``resume=true`` goes on."""

    exit_status = 75  # EX_TEMPFAIL of sysexits.h: try again later


class SweepError(TraceFLError, RuntimeError):
    """Some runs of a sweep failed; the exit status is that of the first."""

    exit_status = 1


class RecordError(TraceFLError, ValueError):
    """A run's folder is missing, incomplete, damaged or of another configuration."""


def one_line(error: BaseException) -> str:
    """Return an error's message on one line, as ``plain`` text."""
    return plain(" ".join(str(error).split()))


def plain(text: str, keep: str = "") -> str:
    """Return a text that a terminal shows and does not obey: control characters are written out.

    Args:
        text: From anywhere: the name of a class, of a file, the words of a client.
        keep: Characters that stay, such as line ends.
    """
    return _OBEYED.sub(lambda found: found[0] if found[0] in keep else _written_out(found[0]), text)


def _written_out(character: str) -> str:
    number = ord(character)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"
