"""What is kept of a round, and how it is read back: whole rounds or none.

``rounds/0001/round.json`` holds the round's row and its traced inputs; ``global.safetensors`` the new global model, of
which an unfinished run keeps at least the last two, to resume from; ``weights/``, where they are kept, the clients':
``previous_global.safetensors``, ``before_noise.safetensors`` where privacy added noise, and one
``client-ID.safetensors`` a participant, or ``update-ID.safetensors`` where its difference to ``previous_global`` is
kept instead; ``SHA256SUMS`` the checksums of them all, those of the weights in ``round.json`` too. A round is written
beside its place and then renamed into it, so a kill at any moment leaves it whole or absent.
"""

import json
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
from math import isfinite
from pathlib import Path

import torch
from torch import Tensor

from tracefl.errors import RecordError
from tracefl.provenance import RoundRecord
from tracefl.records.checksums import (
    CheckedFiles,
    checksum_lines,
    checksums_of_weights,
    round_checksums,
    write_checksums,
)
from tracefl.records.result import RoundResult, as_json, read_result
from tracefl.records.settings import Dtype, Keep, Kind
from tracefl.records.weights import (
    StoredClients,
    cannot_write,
    check_file,
    check_weights,
    read_header,
    read_weights,
    save_weights,
    sync,
    sync_folder,
)

log = logging.getLogger(__name__)

DTYPES: dict[Dtype, torch.dtype | None] = {
    "float32": None,
    "bfloat16": torch.bfloat16,
}  # None: as the clients sent them


class RoundStore:
    """The ``rounds/`` folder of a run.

    Args:
        folder: Where the rounds are.
        keep: Rounds whose weights are kept.
        dtype: Numbers of the clients' floating-point tensors, a key of ``DTYPES``. The global model is kept as it is.
        kind: The clients' weights, or their updates: differences to the weights that they started from, which lose far
            less precision in bfloat16.
        run: The run's files, which vouch for its rounds; None for rounds that belong to no run.
    """

    def __init__(
        self,
        folder: Path,
        keep: Keep = "none",
        dtype: Dtype = "float32",
        kind: Kind = "weights",
        run: CheckedFiles | None = None,
    ) -> None:
        self.folder = folder
        self._run = run
        self.keep = keep
        self.dtype = dtype
        self.kind = kind

    def commit(
        self, result: RoundResult, record: RoundRecord, announce: Callable[[str], None] = lambda _: None
    ) -> None:
        """Write a round, then delete what is not kept of earlier rounds.

        Args:
            result: The round's result.
            record: Its weights.
            announce: Called with the SHA-256 of its checksums before the round takes its place.

        Raises:
            RecordError: The disk is full or fails; earlier rounds are left as they were.
        """
        place = self._place(result.server_round)
        draft = place.with_name(f".{place.name}.partial")
        try:
            announce(self._write(draft, result, record))
            draft.rename(place)
            sync_folder(self.folder)
        except (OSError, RecordError) as error:
            shutil.rmtree(draft, ignore_errors=True)  # gives back the space that it took
            raise error if isinstance(error, RecordError) else cannot_write(place, error) from error
        if self.keep == "last":
            self._drop_clients(before=result.server_round)
        if self.keep != "all":
            self._drop_global_models(before=result.server_round - 1)

    def bytes_needed(self, model: Mapping[str, Tensor], clients: int, num_rounds: int, with_noise: bool = False) -> int:
        """Return the most bytes of weights on disk at any time: a round is written before older ones are deleted.

        Args:
            model: A state dict of the global model.
            clients: Participants of a round.
            num_rounds: Rounds of the run.
            with_noise: Whether the average before the noise is kept too.
        """
        whole, a_round = self._bytes_of_a_round(model, clients, with_noise)
        if self.keep == "all":
            return num_rounds * (whole + a_round)
        return min(num_rounds, 3) * whole + (min(num_rounds, 2) * a_round if self.keep == "last" else 0)

    def bytes_kept(self, model: Mapping[str, Tensor], clients: int, num_rounds: int, with_noise: bool = False) -> int:
        """Return the bytes of weights that a finished run leaves; arguments as of ``bytes_needed``."""
        whole, a_round = self._bytes_of_a_round(model, clients, with_noise)
        return {"all": num_rounds, "last": 1, "none": 0}[self.keep] * (whole + a_round)

    def _bytes_of_a_round(self, model: Mapping[str, Tensor], clients: int, with_noise: bool) -> tuple[int, int]:
        """Return the bytes of a round's global model, and of what its later questions need."""
        whole = sum(tensor.nbytes for tensor in model.values())
        dtype = DTYPES[self.dtype]
        client = whole if dtype is None else sum(_as_kept(tensor, dtype).nbytes for tensor in model.values())
        return whole, (1 + with_noise) * whole + clients * client

    def finish(self) -> None:
        """Delete the global models that only resuming needs."""
        if self.keep != "all":
            rounds = self._numbers("global.safetensors")
            self._drop_global_models(before=rounds[-1] + (self.keep == "none") if rounds else 0)

    def drop_unusable_rounds(self) -> int:
        """Delete rounds that cannot be resumed from and all after them; return the last one that can, 0 for none.

        They are damaged, or their global model is of no use; which, is said in the log.
        """
        last = 0
        for number in self._numbers("round.json"):
            if number != last + 1:
                log.warning("round %d is missing in %s", last + 1, self.folder)
                break
            if not self._is_whole(number, "round.json"):
                break
            last = number
        kept = (number for number in reversed(self._numbers("global.safetensors")) if number <= last)
        usable = next(
            (number for number in kept if self._is_whole(number, "global.safetensors") and self._is_finite(number)), 0
        )
        for leftover in (*self.folder.glob(".*"), *self.folder.glob("[0-9]*/.*"), *self.folder.glob("[0-9]*")):
            if leftover.name.startswith(".") or (leftover.name.isdecimal() and int(leftover.name) > usable):
                self._delete(leftover)
        return usable

    @property
    def last_round(self) -> int:
        """The last recorded round, 0 for none."""
        return max(self._numbers("round.json"), default=0)

    def results(self, first: int = 1) -> Iterator[RoundResult]:
        """Yield every recorded round's result, in order, each compared with its checksum.

        Args:
            first: The round to begin with.

        Raises:
            RecordError: One is damaged.
        """
        for number in self._numbers("round.json"):
            if number >= first:
                yield self.result(number)

    def result(self, server_round: int) -> RoundResult:
        """Return a recorded round's result.

        Args:
            server_round: The round.

        Raises:
            RecordError: It is missing or damaged.
        """
        return read_result(self._files(server_round), server_round)

    def stored_rounds(self) -> list[int]:
        """Return the rounds whose clients' weights are kept, ascending.

        Raises:
            RecordError: One is there that the run's checksums do not speak of.
        """
        found = self._numbers("weights")
        return found if self._run is None else [number for number in found if self._run.has(round_checksums(number))]

    def stored_before(self, server_round: int, limit: int) -> list[int]:
        """Return up to ``limit`` rounds right before one, ascending and without a gap, whose clients' weights are kept.

        Raises:
            RecordError: One is there that the run's checksums do not speak of.
        """
        stored = set(self.stored_rounds())
        found: list[int] = []
        while len(found) < limit and server_round - 1 - len(found) in stored:
            found.insert(0, server_round - 1 - len(found))
        return found

    def has_kept(self, server_round: int) -> bool:
        """Return whether the clients' weights of a round were kept when it was recorded, whether or not they still are.

        Raises:
            RecordError: Its checksums are missing or damaged.
        """
        return any(name.startswith("weights/") for name in self._files(server_round).checksums)

    def checksums_without_deleted(self, server_round: int) -> str | None:
        """Return a round's checksums without its clients' weights where those are gone; None where nothing is gone.

        Raises:
            RecordError: Its checksums are missing or damaged.
        """
        listed = self._files(server_round).checksums
        rest = {name: digests for name, digests in listed.items() if not name.startswith("weights/")}
        if len(rest) == len(listed) or (self._place(server_round) / "weights").exists():
            return None
        return checksum_lines((name, digest) for name, digests in rest.items() for digest in digests)

    def check_stored(self, server_round: int) -> None:
        """Refuse a round whose clients' weights are not kept.

        Raises:
            RecordError: They are not.
        """
        kept = self.stored_rounds()
        if server_round not in kept:
            have = f"kept are {', '.join(map(str, kept))}" if kept else "none are kept"
            raise RecordError(f"round {server_round} has no weights in {self.folder}: {have}; run with store=all")

    def read_global(self, server_round: int) -> dict[str, Tensor]:
        """Return a round's global model.

        Raises:
            RecordError: It is not kept, or damaged.
        """
        return read_weights(self._files(server_round), "global.safetensors")

    def shapes(self, server_round: int) -> list[tuple[int, ...]]:
        """Return the shapes of the tensors that a round's global model says that it has.

        Raises:
            RecordError: It is not kept, or is no whole safetensors file.
        """
        files, name = self._files(server_round), "global.safetensors"
        with files.opened_unchecked(name) as descriptor:
            header = read_header(descriptor, files.folder / name)
        return [tuple(tensor["shape"]) for tensor in header.values()]

    def read(self, server_round: int, like: Mapping[str, Tensor] | None = None) -> RoundRecord:
        """Return a stored round, its weights in the global model's dtypes however they were stored.

        Every file is compared with its checksum; a client's weights are then read on access, see ``StoredClients``.

        Args:
            server_round: The round.
            like: The model's state dict, whose names and shapes every file has; None to take the global model's.

        Raises:
            RecordError: The round's weights are not kept, or a file is damaged or of another model.
        """
        self.check_stored(server_round)
        files, weights = self._files(server_round), self._place(server_round) / "weights"
        p = read_result(files, server_round).client_weights
        global_weights = read_weights(files, "global.safetensors", like)
        previous = read_weights(files, "weights/previous_global.safetensors", global_weights)
        noise = "weights/before_noise.safetensors"
        before_noise = read_weights(files, noise, global_weights) if files.has(noise) else None
        clients = StoredClients(weights, {client: self._client_file(files, client) for client in p}, previous)
        for name in clients.files:
            check_weights(files, f"weights/{name}", global_weights)
        return RoundRecord(
            server_round=server_round,
            clients=clients,
            client_weights=p,
            previous_global=previous,
            global_weights=global_weights,
            before_noise=before_noise,
            clients_dtype=clients.kept_dtype,
        )

    @staticmethod
    def _client_file(files: CheckedFiles, client_id: str) -> str:
        """Return the name of the file that keeps a client's weights, or its update."""
        update = f"update-{client_id}.safetensors"
        return update if files.has(f"weights/{update}") else f"client-{client_id}.safetensors"

    def _write(self, draft: Path, result: RoundResult, record: RoundRecord) -> str:
        """Write a round into a draft; return the SHA-256 of its checksums."""
        if draft.exists():
            shutil.rmtree(draft)
        self.folder.mkdir(exist_ok=True)  # but not its parent: a run's folder that was removed is not made again
        draft.mkdir()
        save_weights(draft / "global.safetensors", record.global_weights)
        if self.keep != "none":
            weights = draft / "weights"
            weights.mkdir()
            save_weights(weights / "previous_global.safetensors", record.previous_global)
            if record.before_noise is not None:
                save_weights(weights / "before_noise.safetensors", record.before_noise)
            for client_id, state in record.clients.items():
                self._save_client(weights, client_id, state, record.previous_global)
        of_weights = checksums_of_weights(draft)
        (draft / "round.json").write_text(json.dumps(as_json(result, of_weights), indent=1) + "\n")
        checksum = write_checksums(draft, of_weights)
        sync(draft)
        return checksum

    def _files(self, server_round: int) -> CheckedFiles:
        return CheckedFiles(self._place(server_round), "round", self._run)

    def _is_whole(self, server_round: int, name: str) -> bool:
        """Return whether a file is as it was written; log one that is not."""
        try:
            check_file(self._files(server_round), name)
        except RecordError as error:
            log.warning("%s", error)
            return False
        return True

    def _is_finite(self, server_round: int) -> bool:
        """Return whether a round's model is finite, and its loss on the server's examples; log one that is not."""
        place, weights = self._place(server_round), self.read_global(server_round)
        loss = self.result(server_round).row["global_loss"]
        odd = [name for name, tensor in weights.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
        if odd:
            log.warning("%s: the global model is not finite, first in %s; going on from before it", place, odd[0])
        elif loss is not None and not isfinite(loss):
            log.warning("%s: the global model's loss is %s; going on from before it", place, loss)
        else:
            return True
        return False

    def _numbers(self, name: str) -> list[int]:
        """Return the rounds that hold a file or folder of that name, ascending."""
        found = (place.parent.name for place in self.folder.glob(f"[0-9]*/{name}"))
        return sorted(int(number) for number in found if number.isdecimal())  # not a user's copy, 0003.bak

    def _place(self, server_round: int) -> Path:
        return self.folder / f"{server_round:04d}"

    def _save_client(
        self, folder: Path, client_id: str, state: Mapping[str, Tensor], previous: Mapping[str, Tensor]
    ) -> None:
        updates = self.kind == "updates"
        dtype = DTYPES[self.dtype]
        kept = {}
        for name, tensor in state.items():
            if tensor.is_floating_point():
                tensor = tensor - previous[name].to(tensor) if updates else tensor
                tensor = tensor if dtype is None else _as_kept(tensor, dtype)
            kept[name] = tensor
        save_weights(folder / f"{'update' if updates else 'client'}-{client_id}.safetensors", kept)

    def _drop_clients(self, before: int) -> None:
        for number in self._numbers("weights"):
            if number < before:
                self._delete(self._place(number) / "weights")

    def _drop_global_models(self, before: int) -> None:
        for number in self._numbers("global.safetensors"):
            if number < before and not (self._place(number) / "weights").exists():
                (self._place(number) / "global.safetensors").unlink()

    @staticmethod
    def _delete(folder: Path) -> None:
        """Delete a folder; renamed first, so that a kill leaves no half of it in sight."""
        if not folder.is_dir():  # such as .nfs0000, which the file server deletes by itself once it is closed
            folder.unlink(missing_ok=True)
            return
        if not folder.name.startswith("."):
            gone = folder.with_name(f".{folder.name}.gone")
            if gone.exists():
                shutil.rmtree(gone)
            folder = folder.rename(gone)
        shutil.rmtree(folder)


def _as_kept(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.to(dtype) if tensor.is_floating_point() else tensor
