"""Checksums of the files that decide a run's answers.

They are kept as ``SHA256SUMS`` in the layout of ``sha256sum``: one in a round's folder for all of its files, and one in
the run's folder for those named by ``is_covered``, the rounds' ``SHA256SUMS`` among them, so that whoever knows the
run's knows all. ``sha256sum -c --ignore-missing SHA256SUMS`` says the same as this module, of a run that is
complete: while one is being made, a file may have two lines, what it was and what it becomes, and is whole if it is
either. So a kill at any moment leaves no file that looks damaged.
"""

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath

from tracefl.common.inside import is_there, opened, read_bytes, sha256_of
from tracefl.common.text_files import write_atomically
from tracefl.errors import RecordError

CHECKSUMS = "SHA256SUMS"
_COVERED = (
    *("config.yaml", "command.txt", "label_counts.json", "model.json", "fault.json", "server.safetensors"),
    *("rounds.csv", "provenance.csv", "suspects.csv", "stand_outs.csv", "mitigation.csv", "results.json"),
)
_COVERED_FOLDERS = ("tokenizer/*", f"rounds/[0-9]*/{CHECKSUMS}")
_LINE = re.compile(r"([0-9a-f]{64})  ([^\x00-\x1f\x7f]+)")
_ROUND = re.compile(r"rounds/([0-9]{4,10})/.*")
_MOST_BYTES = 1 << 26  # half a million lines

Checksums = dict[str, tuple[str, ...]]
"""A file's path below the folder to its SHA-256: two while it is being replaced."""


def is_covered(name: str) -> bool:
    """Return whether a file, by its path below a run's folder, decides an answer: such files have a line."""
    return name in _COVERED or any(PurePosixPath(name).match(each) for each in _COVERED_FOLDERS)


def round_checksums(number: int) -> str:
    """Return the path of a round's checksums below the run's folder."""
    return f"rounds/{number:04d}/{CHECKSUMS}"


def names_below(folder: Path) -> Iterator[str]:
    """Yield the path of all that is below a folder and is no folder, links included, which are not followed.

    Raises:
        OSError: A folder cannot be read.
    """

    def fail(error: OSError) -> None:
        raise error

    for place, folders, files in os.walk(folder, onerror=fail):
        links = [name for name in folders if (Path(place) / name).is_symlink()]
        for name in sorted((*files, *links)):
            yield (Path(place) / name).relative_to(folder).as_posix()


def listed_rounds(files: "CheckedFiles") -> list[int]:
    """Return the rounds that a run's checksums speak of, ascending."""
    return sorted(int(found[1]) for found in map(_ROUND.fullmatch, files.checksums) if found is not None)


def parse_checksums(data: bytes, path: Path) -> Checksums:
    """Read the lines of a ``SHA256SUMS``.

    Raises:
        RecordError: One is no line of a checksum.
    """
    found: Checksums = {}
    try:
        lines = data.decode().split("\n")  # and at nothing else that ends a line of text
    except UnicodeDecodeError as error:
        raise RecordError(f"{path} is damaged: it is no text") from error
    if lines.pop():
        raise RecordError(f"{path} is damaged: its last line has no end")
    for number, line in enumerate(lines, 1):
        parts = _LINE.fullmatch(line)
        if parts is None:
            raise RecordError(f"{path} is damaged: line {number} is no checksum and the name of a file")
        if parts[1] in found.get(parts[2], ()):
            raise RecordError(f"{path} is damaged: line {number} is there twice")
        found[parts[2]] = (*found.get(parts[2], ()), parts[1])
    return found


def checksum_lines(found: Iterable[tuple[str, str]]) -> str:
    """Return the lines of a ``SHA256SUMS``, of files' paths and their SHA-256."""
    return "".join(f"{digest}  {name}\n" for name, digest in found)


def write_checksums(folder: Path, known: Mapping[str, str] | None = None) -> str:
    """Write the SHA-256 of every file below a round's folder into its ``SHA256SUMS``; return that file's own.

    Args:
        folder: The round's folder.
        known: File to its SHA-256, of what need not be read again.
    """
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return _write(folder, names, known)


def checksums_of_weights(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file of weights below a round's folder."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.safetensors"))
    return {name: sha256_of_file(folder, name) for name in names}


def seal(folder: Path) -> None:
    """Write the SHA-256 of every covered file of a run's folder into its ``SHA256SUMS``."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    _write(folder, [name for name in names if is_covered(name)])


def sha256_of_file(folder: Path, name: str) -> str:
    """Return the SHA-256 of a file below a folder; errors as of ``opened``."""
    with opened(folder, name) as descriptor:
        return sha256_of(descriptor)


def _write(folder: Path, names: list[str], known: Mapping[str, str] | None = None) -> str:
    known = known or {}
    found = ((name, known.get(name) or sha256_of_file(folder, name)) for name in names if name != CHECKSUMS)
    text = checksum_lines(found)
    write_atomically(folder / CHECKSUMS, text)
    return hashlib.sha256(text.encode()).hexdigest()


class ChangingChecksums:
    """The ``SHA256SUMS`` of a run that is being made, by the only process that writes there.

    Args:
        folder: The run's folder.
        kept: File to its SHA-256, of what is there already and stays.
    """

    def __init__(self, folder: Path, kept: Mapping[str, str]) -> None:
        self._folder = folder
        self._kept = dict(kept)

    def announce(self, changes: Mapping[str, str | None]) -> None:
        """Say what files become, before they do; until the next call they may be what they were.

        Args:
            changes: File to its SHA-256; None for one that goes.

        Raises:
            OSError: It cannot be written; what was said before holds.
        """
        after = {name: digest for name, digest in {**self._kept, **changes}.items() if digest is not None}
        before = {n: self._kept[n] for n in changes if n in after and self._kept.get(n, after[n]) != after[n]}
        lines = [(name, each[name]) for name in sorted(after) for each in (before, after) if name in each]
        write_atomically(self._folder / CHECKSUMS, checksum_lines(lines))
        self._kept = after


class CheckedFiles:
    """The files of a run's or of a round's folder, each compared with its checksum when it is read.

    Args:
        folder: The folder.
        of: What leaves such a folder, ``run`` or ``round``.
        run: Of a round's folder the files of the run, which have the checksum of its checksums; None for a round that
            belongs to none.
    """

    def __init__(self, folder: Path, of: str = "run", run: "CheckedFiles | None" = None) -> None:
        self.folder = folder
        self._of = of
        self._run = run
        self._checksums: Checksums = {}
        self._seen: tuple[int, ...] | None = None

    @property
    def checksums(self) -> Checksums:
        """What ``SHA256SUMS`` says now.

        Raises:
            RecordError: It is missing or damaged.
        """
        path = self.folder / CHECKSUMS
        try:
            state = path.lstat()
            seen = state.st_ino, state.st_size, state.st_mtime_ns
            if self._seen != seen:
                self._checksums, self._seen = parse_checksums(self._read_checksums(), path), seen
        except FileNotFoundError as error:
            raise RecordError(
                f"{self.folder} has no {CHECKSUMS}: it is no {self._of}'s folder, or one of another version of tracefl"
            ) from error
        return self._checksums

    def has(self, name: str) -> bool:
        """Return whether a file belongs to the folder by its checksums, whether or not it is there.

        Raises:
            RecordError: It has no checksum, and is there all the same: the checksums have lost a line.
        """
        if name not in self.checksums and is_there(self.folder, name):
            raise self._without_line(name)
        return name in self.checksums

    @contextmanager
    def opened(self, name: str, most_bytes: int | None = None) -> Iterator[int]:
        """Open a file whose checksum is right; arguments as of ``inside.opened``.

        Raises:
            RecordError: It is missing, was changed since it was written, has no checksum, is no regular file of the
                folder's own, or is too large.
        """
        with self.opened_unchecked(name, most_bytes) as descriptor:
            self.check_opened(name, descriptor)
            yield descriptor

    @contextmanager
    def opened_unchecked(self, name: str, most_bytes: int | None = None) -> Iterator[int]:
        """Open a file without comparing its checksum, to look at its beginning first; as ``opened`` else."""
        with ExitStack() as stack:
            with self._missing_told(name):
                descriptor = stack.enter_context(opened(self.folder, name, most_bytes))
            yield descriptor

    def check_opened(self, name: str, descriptor: int) -> None:
        """Compare a file that is open with its checksum.

        Raises:
            RecordError: It has none, or was changed since it was written.
        """
        self._check(name, sha256_of(descriptor))

    def read(self, name: str, most_bytes: int) -> bytes:
        """Return what a file holds whose checksum is right; arguments and errors as of ``opened``."""
        with self._missing_told(name):
            data = read_bytes(self.folder, name, most_bytes)
        self._check(name, hashlib.sha256(data).hexdigest())
        return data

    def check(self, name: str, most_bytes: int | None = None) -> None:
        """Compare a file with its checksum; arguments and errors as of ``opened``."""
        with self.opened(name, most_bytes):
            pass

    def _read_checksums(self) -> bytes:
        if self._run is None:
            return read_bytes(self.folder, CHECKSUMS, _MOST_BYTES)
        return self._run.read((self.folder / CHECKSUMS).relative_to(self._run.folder).as_posix(), _MOST_BYTES)

    def _check(self, name: str, found: str) -> None:
        if name not in self.checksums:
            raise self._without_line(name)
        if found not in self.checksums[name]:
            raise RecordError(
                f"{self.folder / name} is damaged: its checksum is not the one in {CHECKSUMS}; {self._advice}"
            )

    def _without_line(self, name: str) -> RecordError:
        return RecordError(f"{self.folder / name} has no line in {CHECKSUMS}; {self._advice}")

    @contextmanager
    def _missing_told(self, name: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            said = f"{self.folder} is no {self._of}'s folder: it has no {name}"
            if is_there(self.folder, CHECKSUMS) and self.has(name):
                said = f"{self.folder / name} is missing, and {CHECKSUMS} has a line for it; {self._advice}"
            raise RecordError(said) from error

    @property
    def _advice(self) -> str:
        return "use another round" if self._of == "round" else "use another copy of the run, or run again"
