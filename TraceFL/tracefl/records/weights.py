"""Files of a round's folder: weights in safetensors, and flushing files to disk. Nothing is unpickled."""

import errno
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from tracefl.common.inside import opened, path_of
from tracefl.common.paths import usual_mode
from tracefl.errors import RecordError, one_line, plain
from tracefl.provenance.sources import SafetensorsFile
from tracefl.records.checksums import CheckedFiles

TensorHeader: TypeAlias = dict[str, Any]
"""What a safetensors file's header says of a tensor: ``dtype``, ``shape`` and ``data_offsets``."""

FLOATS = ("F64", "F32", "F16", "BF16")
"""Types of numbers that a client's weights may be kept in."""

_MOST_TEXT_BYTES = 1 << 30
_LONGEST_HEADER = 100_000_000  # bytes, as the library has it


def save_weights(path: Path, state: Mapping[str, Tensor]) -> None:
    """Write a state dict; tied and transposed tensors are written as copies.

    Raises:
        RecordError: The file cannot be written, for example because the disk is full.
    """
    # safetensors refuses tensors that share memory (tied weights) or are not contiguous
    tensors: dict[str, Tensor] = {}
    storages: set[int] = set()
    for name, tensor in state.items():
        kept = tensor.detach().cpu().contiguous()
        storage = kept.untyped_storage().data_ptr()
        tensors[name] = kept.clone() if storage in storages else kept
        storages.add(storage)
    try:
        with usual_mode(path):
            save_file(tensors, path)
    except SafetensorError as error:
        raise cannot_write(path, error) from error


def read_weights(files: CheckedFiles, name: str, like: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """Read what ``save_weights`` wrote.

    Args:
        files: The files of the round's folder.
        name: The file.
        like: Tensors whose names, shapes and types it has; None for any.

    Raises:
        RecordError: The file is missing, damaged, or of another model.
    """
    with opened_weights(files, name, like) as descriptor, _loading(files.folder / name):
        weights = load_file(path_of(descriptor))
    _refuse_other([n for n, tensor in (like or {}).items() if weights[n].dtype != tensor.dtype], files.folder / name)
    return weights


def check_weights(files: CheckedFiles, name: str, like: Mapping[str, Tensor] | None = None) -> None:
    """Check a file without reading its tensors; arguments and errors as of ``opened_weights``."""
    with opened_weights(files, name, like):
        pass


@contextmanager
def opened_weights(
    files: CheckedFiles, name: str, like: Mapping[str, Tensor] | None = None, most_bytes: int | None = None
) -> Iterator[int]:
    """Open a file and check it: its header first, so that a file of any size is refused at once.

    Args:
        files: The files of the round's, or the run's, folder.
        name: The file.
        like: Tensors whose names and shapes it has, and whose kind of numbers; None for any.
        most_bytes: Its largest legal size; None for any.

    Yields:
        A file descriptor, closed at the end.

    Raises:
        RecordError: The file is missing, damaged, too large, or of another model.
    """
    with files.opened_unchecked(name, most_bytes) as descriptor:
        header = read_header(descriptor, files.folder / name)
        if like is not None:
            _compare(header, like, files.folder / name)
        files.check_opened(name, descriptor)
        yield descriptor


def check_file(files: CheckedFiles, name: str) -> None:
    """Compare any file of a run with its checksum, within the size that its kind may have.

    Raises:
        RecordError: It is missing, damaged, or too large.
    """
    if name.endswith(".safetensors"):
        check_weights(files, name)
    else:
        files.check(name, _MOST_TEXT_BYTES)


def read_header(descriptor: int, path: Path) -> dict[str, TensorHeader]:
    """Return the tensors that an open safetensors file says that it holds.

    Raises:
        RecordError: It is no whole safetensors file.
    """
    from tracefl.records.schema import TensorsHeader, parse

    size = os.fstat(descriptor).st_size
    length = int.from_bytes(os.pread(descriptor, 8, 0), "little")
    if size < 8 or length > min(size - 8, _LONGEST_HEADER):
        raise RecordError(f"{path} is no whole safetensors file: a header of {length} bytes in a file of {size}")
    header: dict[str, TensorHeader] = parse(TensorsHeader, os.pread(descriptor, length, 8), path)
    header.pop("__metadata__", None)
    odd = next((name for name, tensor in header.items() if "data_offsets" not in tensor), None)
    if odd is not None:
        raise RecordError(
            f"{path} is no whole safetensors file: its header has {plain(odd)[:100]!r}, which is no tensor"
        )
    ends = [tensor["data_offsets"][1] for tensor in header.values()]
    if size != 8 + length + max(ends, default=0):
        raise RecordError(f"{path} is no whole safetensors file: it has {size} bytes, and its header speaks of others")
    return header


def _compare(header: Mapping[str, TensorHeader], like: Mapping[str, Tensor], path: Path) -> None:
    differing = sorted(header.keys() ^ like.keys()) or sorted(
        name
        for name, tensor in like.items()
        if tuple(header[name]["shape"]) != tuple(tensor.shape)
        or (header[name]["dtype"] in FLOATS) != tensor.is_floating_point()
    )
    _refuse_other(differing, path)


def _refuse_other(differing: Sequence[str], path: Path) -> None:
    """Refuse a file by the names of the tensors in which it is not the model's."""
    if differing:
        raise RecordError(
            f"{path} does not fit the run's model in {len(differing)} tensors, such as {differing[0]!r}; it is "
            "damaged, or that of another run"
        )


def load_unchecked(folder: Path, name: str) -> dict[str, Tensor]:
    """Read what ``save_weights`` wrote, of files that have no checksums or were compared with them before.

    Raises:
        RecordError: The file is missing or damaged.
    """
    with _loading(folder / name), opened(folder, name) as descriptor:
        return load_file(path_of(descriptor))


@contextmanager
def _loading(path: Path) -> Iterator[None]:
    """Raise a RecordError that names the file for what a library refuses that reads it."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise RecordError(f"{path} cannot be read ({one_line(error)}); the round is damaged, use another") from error


def cannot_write(path: Path, error: Exception) -> RecordError:
    """Return the error of a round that cannot be written: the round is lost, earlier ones are not."""
    full = (isinstance(error, OSError) and error.errno == errno.ENOSPC) or "No space left" in str(error)
    remedy = "free some space" if full else "check the disk"
    return RecordError(
        f"{path} cannot be written ({error}); earlier rounds stay recorded: {remedy} and continue with resume=true",
        exit_status=1,
    )


def sync(folder: Path) -> None:
    """Flush every file below a folder to disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    sync_folder(folder)


def sync_folder(folder: Path) -> None:
    """Flush a folder's list of files to disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class StoredClients(Mapping[str, Mapping[str, Tensor]]):
    """Client id to state dict, read from disk on each access.

    Iterating holds one client at a time, however many took part. Weights stored as the clients sent them are
    memory-mapped; those stored in another form are converted.

    Args:
        folder: The files' folder.
        files: Client to its file: ``client-ID.safetensors``, or ``update-ID.safetensors`` where its difference to
            ``previous`` is stored.
        previous: State dict that the clients started from; floating-point tensors are given in its types.
    """

    def __init__(self, folder: Path, files: Mapping[str, str], previous: Mapping[str, Tensor]) -> None:
        self._folder = folder
        self._files = dict(files)
        self._previous = previous

    def __getitem__(self, client_id: str) -> dict[str, Tensor]:
        """Read a client.

        Raises:
            RecordError: Its file is gone.
        """
        name = self._files[client_id]
        kept = load_unchecked(self._folder, name)
        return {key: self._restored(key, tensor, name.startswith("update-")) for key, tensor in kept.items()}

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    @property
    def files(self) -> Collection[str]:
        """Names of the clients' files."""
        return self._files.values()

    @property
    def kept_dtype(self) -> torch.dtype | None:
        """The coarsest type of numbers that the first client's weights are kept in; None for no floating-point numbers.

        Raises:
            RecordError: Its file is gone.
        """
        if not self._files:
            return None
        name = next(iter(self._files.values()))
        with _loading(self._folder / name), opened(self._folder, name) as descriptor:
            dtypes = SafetensorsFile(path_of(descriptor)).dtypes
        return max(dtypes, key=lambda dtype: torch.finfo(dtype).eps, default=None)

    def _restored(self, name: str, kept: Tensor, is_update: bool) -> Tensor:
        previous = self._previous.get(name)
        if previous is None or not kept.is_floating_point():
            return kept
        return kept.to(previous) + previous if is_update else kept.to(previous)
