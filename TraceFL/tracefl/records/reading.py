"""Reading the files of a run's folder: whatever is wrong with one is a RecordError of one line that names it."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from textwrap import shorten
from typing import Any

from yaml import YAMLError

from tracefl.common.imports import broken_library
from tracefl.common.words import numbers
from tracefl.errors import LibraryError, RecordError, one_line

_LONGEST = 300  # characters of what another library says of a file


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
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError, YAMLError) as error:
        broken = broken_library(error)
        if broken is not None:
            raise LibraryError(broken) from error
        reason = f"it lacks {error.args[0]}" if isinstance(error, KeyError) else one_line(error)
        reason = shorten(reason, _LONGEST, placeholder=" ...").rstrip(";.")
        raise RecordError(
            f"{path} is damaged or of another version of tracefl: {reason}; use that version or run again"
        ) from error


def read_results(folder: Path) -> dict[str, Any]:
    """Return what results.json of a run's folder says.

    Raises:
        RecordError: The run is not complete, or the file is damaged.
    """
    path = folder / "results.json"
    with reading(path):
        return dict(json.loads(path.read_text(encoding="utf-8")))


def lacking_words(lacking: Mapping[int, str]) -> str:
    """Return which rounds cannot be read and why, on one line: of several the first one's reason."""
    first = next(iter(lacking))
    if len(lacking) == 1:
        return f"round {first}: {lacking[first]}"
    return f"rounds {numbers(list(lacking))}; the first: {lacking[first]}"
