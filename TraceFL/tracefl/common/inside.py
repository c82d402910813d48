"""Files of a folder that nobody vouches for: opened only where they are regular files in it, read up to a size.

A link may lead anywhere, a pipe never ends, and a device has no size: none of them is what a program left there.
"""

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from tracefl.errors import RecordError

_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_KINDS = {
    stat.S_IFLNK: "a link",
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
_A_BLOCK = 1 << 20  # bytes that are hashed at once


@contextmanager
def opened(folder: Path, name: str, most_bytes: int | None = None) -> Iterator[int]:
    """Open a file below a folder for reading; the folder itself may be reached by a link.

    Args:
        folder: The folder.
        name: The file's path below it, with slashes.
        most_bytes: Its largest legal size; None for any.

    Yields:
        A file descriptor, closed at the end.

    Raises:
        FileNotFoundError: There is no such file.
        RecordError: It is no regular file of the folder's own, or too large.
        OSError: It cannot be opened.
    """
    descriptor = _open(folder, name)
    try:
        size = os.fstat(descriptor).st_size
        if most_bytes is not None and size > most_bytes:
            raise RecordError(
                f"{folder / name} holds {size} bytes, and such a file has at most {most_bytes}; it is damaged"
            )
        yield descriptor
    finally:
        os.close(descriptor)


def read_bytes(folder: Path, name: str, most_bytes: int) -> bytes:
    """Return what a file below a folder holds; arguments and errors as of ``opened``."""
    with opened(folder, name, most_bytes) as descriptor, os.fdopen(descriptor, "rb", closefd=False) as file:
        size = os.fstat(descriptor).st_size
        found = file.read(size + 1)  # the memory for as many bytes is taken before any is read
        if len(found) > size:  # it has grown meanwhile
            found += file.read(most_bytes + 1 - len(found))
    if len(found) > most_bytes:
        raise RecordError(f"{folder / name} holds more than {most_bytes} bytes; it is damaged")
    return found


def sha256_of(descriptor: int) -> str:
    """Return the SHA-256 of all that an open file holds, in hexadecimal; its position stays."""
    digest, place = hashlib.sha256(), 0
    while block := os.pread(descriptor, _A_BLOCK, place):
        digest.update(block)
        place += len(block)
    return digest.hexdigest()


def path_of(descriptor: int) -> str:
    """Return a path that leads to an open file, whatever has taken its place in the folder meanwhile."""
    return f"/proc/self/fd/{descriptor}"


def is_there(folder: Path, name: str) -> bool:
    """Return whether anything stands in a file's place, also what ``opened`` would refuse."""
    return os.path.lexists(folder / name)


def _open(folder: Path, name: str) -> int:
    parts = PurePosixPath(name).parts
    if not parts or PurePosixPath(name).is_absolute() or ".." in parts:
        raise RecordError(f"{name!r} does not lie in {folder}; it is no file of that folder")
    *folders, last = parts
    place, descriptor = folder, os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in folders:
            place /= part
            descriptor = _step(descriptor, place, _FLAGS | os.O_DIRECTORY)
        # Without O_NONBLOCK, opening a pipe waits for its writer.
        descriptor = _step(descriptor, place / last, _FLAGS | os.O_NONBLOCK | os.O_NOCTTY)
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise _refusal(folder / name, mode)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _step(descriptor: int, path: Path, flags: int) -> int:
    """Open what stands in an open folder, and close the folder."""
    try:
        found = os.open(path.name, flags, dir_fd=descriptor)
    except OSError as error:
        error.filename = str(path)  # which the system gives without its folder
        if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.ENXIO):  # a link, no folder, a socket
            raise _refusal(path, os.lstat(path.name, dir_fd=descriptor).st_mode) from error
        raise
    os.close(descriptor)
    return found


def _refusal(path: Path, mode: int) -> RecordError:
    found = _KINDS.get(stat.S_IFMT(mode), "a file")
    return RecordError(f"{path} is {found}, and what a run leaves are files and folders of its own; it is damaged")
