"""The clients of a stored round, read from their files one at a time and not kept."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from torch import Tensor

from tracefl.round_files import load_weights


class StoredClients(Mapping[str, Mapping[str, Tensor]]):
    """Client id to its state dict, which is read anew each time that it is asked for.

    So whoever goes through the clients holds one of them at a time, however many took part. Weights that are kept as
    the clients sent them are mapped from their file, which the system reads as they are used; those that are kept in
    another form are computed.

    Args:
        folder: Of ``client-ID.safetensors``, or of ``update-ID.safetensors`` where a client's difference to
            ``previous`` is kept.
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
        update = self._folder / f"update-{client_id}.safetensors"
        is_update = update.exists()
        kept = load_weights(update if is_update else self._folder / f"client-{client_id}.safetensors")
        return {name: self._restored(name, tensor, is_update) for name, tensor in kept.items()}

    def __iter__(self) -> Iterator[str]:
        return iter(self._ids)

    def __len__(self) -> int:
        return len(self._ids)

    def _restored(self, name: str, kept: Tensor, is_update: bool) -> Tensor:
        previous = self._previous.get(name)
        if previous is None or not kept.is_floating_point():
            return kept
        return kept.to(previous) + previous if is_update else kept.to(previous)
