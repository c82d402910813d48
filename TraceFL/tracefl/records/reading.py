"""Reading the files of a run's folder: whatever is wrong with one is a RecordError of one line that names it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from textwrap import shorten
from typing import Any

from yaml import YAMLError

from tracefl.common.imports import broken_library
from tracefl.common.inside import is_there
from tracefl.common.words import numbers
from tracefl.errors import LibraryError, RecordError, one_line
from tracefl.records.checksums import CheckedFiles, round_checksums

RESULTS = "results.json"
"""The file that a run leaves when it is complete."""

_LONGEST = 300  # characters of what another library says of a file
_MOST_BYTES = 1 << 28  # of a JSON file other than a round's


@contextmanager
def reading(path: Path, of: str = "run") -> Iterator[None]:
    """Raise one RecordError for whatever goes wrong while a file is read and understood.

    Args:
        path: The file.
        of: What leaves such a file in its folder, ``run`` or ``round``.

    Raises:
        RecordError: The file is missing, cannot be read, or does not hold what it should.
        LibraryError: A library that understanding it takes cannot be imported.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise RecordError(f"{path.parent} is no {of}'s folder: it has no {path.name}") from error
    except (
        *(OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError, ArithmeticError, AssertionError),
        YAMLError,
    ) as error:
        if isinstance(error, RecordError) and str(path) in str(error):
            raise  # it says so already
        broken = broken_library(error)
        if broken is not None:
            raise LibraryError(broken) from error
        reason = f"it lacks {error.args[0]}" if isinstance(error, KeyError) else one_line(error)
        reason = shorten(reason, _LONGEST, placeholder=" ...").rstrip(";.")
        raise RecordError(
            f"{path} is damaged or of another version of tracefl: {reason}; use that version or run again"
        ) from error


def read_json(files: CheckedFiles, name: str, shape: Any, most_bytes: int = _MOST_BYTES) -> dict[str, Any]:
    """Return what a JSON file holds.

    Args:
        files: The folder's files.
        name: The file.
        shape: One of the classes of ``schema``.
        most_bytes: Its largest legal size.

    Raises:
        RecordError: It is missing, damaged, has no checksum, or holds what it may not.
    """
    from tracefl.records.schema import parse

    found: dict[str, Any] = parse(shape, files.read(name, most_bytes), files.folder / name)
    return found


def read_results(folder: Path, num_rounds: int | None = None) -> dict[str, Any]:
    """Return what results.json of a complete run says.

    Args:
        folder: The run's folder.
        num_rounds: How many rounds a complete run has; None where that is not known.

    Raises:
        RecordError: The run is not complete, or the file is damaged or of another number of rounds.
    """
    from tracefl.records.schema import ResultsFile

    files = CheckedFiles(folder)
    results = read_json(files, RESULTS, ResultsFile)
    rounds = results["rounds"] if num_rounds is None else num_rounds
    if results["rounds"] != rounds or results["final"]["round"] != rounds:
        raise RecordError(
            f"{folder / RESULTS} is of {results['rounds']} rounds, and the run has {rounds}; run it again"
        )
    return results


def check_rounds(files: CheckedFiles, last: int, first: int = 1) -> None:
    """Check that a run's rounds from the first to the last are there, without reading them.

    Raises:
        RecordError: One is missing.
    """
    for number in range(first, last + 1):
        if not (files.has(round_checksums(number)) and is_there(files.folder, f"rounds/{number:04d}/round.json")):
            raise RecordError(
                f"round {number} is missing in {files.folder}: rounds/{number:04d}/round.json; use another copy"
            )


def lacking_words(lacking: Mapping[int, str]) -> str:
    """Return which rounds cannot be read and why, on one line: of several the first one's reason."""
    first = next(iter(lacking))
    if len(lacking) == 1:
        return f"round {first}: {lacking[first]}"
    return f"rounds {numbers(list(lacking))}; the first: {lacking[first]}"
