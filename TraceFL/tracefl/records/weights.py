"""Files of a round's folder: weights in safetensors, and flushing files to disk. Nothing is unpickled."""

import errno
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from tracefl.common.paths import usual_mode
from tracefl.errors import RecordError
from tracefl.provenance.sources import SafetensorsFile


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


def load_weights(path: Path) -> dict[str, Tensor]:
    """Read what ``save_weights`` wrote.

    Raises:
        RecordError: The file is missing or is no safetensors file.
    """
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise RecordError(f"{path} cannot be read ({error}); the round is damaged, use another") from error


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
        folder: Holds ``client-ID.safetensors``, or ``update-ID.safetensors`` where a client's difference to
            ``previous`` is stored.
        client_ids: The clients.
        previous: State dict that the clients started from; floating-point tensors are given in its types.
    """

    def __init__(self, folder: Path, client_ids: Sequence[str], previous: Mapping[str, Tensor]) -> None:
        self._folder = folder
        self._ids = dict.fromkeys(client_ids)
        self._previous = previous

    def __getitem__(self, client_id: str) -> dict[str, Tensor]:
        """Read a client.

        Raises:
            RecordError: Its file is gone.
        """
        if client_id not in self._ids:
            raise KeyError(client_id)
        path, is_update = self._file(client_id)
        kept = load_weights(path)
        return {name: self._restored(name, tensor, is_update) for name, tensor in kept.items()}

    def __iter__(self) -> Iterator[str]:
        return iter(self._ids)

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def kept_dtype(self) -> torch.dtype | None:
        """The coarsest type of numbers that the first client's weights are kept in; None for no floating-point numbers.

        Raises:
            RecordError: Its file is gone.
        """
        if not self._ids:
            return None
        path, _ = self._file(next(iter(self._ids)))
        return max(SafetensorsFile(path).dtypes, key=lambda dtype: torch.finfo(dtype).eps, default=None)

    def _file(self, client_id: str) -> tuple[Path, bool]:
        """Return a client's file, and whether it holds an update."""
        update = self._folder / f"update-{client_id}.safetensors"
        return (update, True) if update.exists() else (self._folder / f"client-{client_id}.safetensors", False)

    def _restored(self, name: str, kept: Tensor, is_update: bool) -> Tensor:
        previous = self._previous.get(name)
        if previous is None or not kept.is_floating_point():
            return kept
        return kept.to(previous) + previous if is_update else kept.to(previous)
