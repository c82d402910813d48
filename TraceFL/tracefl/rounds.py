"""What is kept of a round, and how it is read back: whole rounds or none.

``rounds/0001/round.json`` holds the round's row and its traced inputs; ``rounds/0001/weights/`` holds, where they are
kept, ``global.safetensors``, ``previous_global.safetensors``, ``before_noise.safetensors`` where privacy added noise,
and one ``client-ID.safetensors`` a participant, or ``update-ID.safetensors`` where its difference to
``previous_global`` is kept instead. A round is written beside its place and then renamed into it, so a kill at any
moment leaves it whole or absent. Nothing that is read here is ever unpickled.
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from tracefl.errors import RecordError
from tracefl.provenance import RoundRecord, TracedInput

Store = Literal["none", "last", "all"]
STORES = ("none", "last", "all")
DTYPES = {"float32": None, "bfloat16": torch.bfloat16}  # None: as the clients sent them
KINDS = ("weights", "updates")


@dataclass(frozen=True)
class RoundResult:
    """A finished round: what rounds.csv and provenance.csv say of it.

    Attributes:
        row: Column to value, as in rounds.csv; fractions 0 to 1, None where nothing was measured.
        traced: The traced inputs.
        client_weights: Client id to p_k of the clients that count.
        left_out: Client id to the reason.
    """

    row: Mapping[str, Any]
    traced: tuple[TracedInput, ...]
    client_weights: Mapping[str, float]
    left_out: Mapping[str, str]

    @property
    def server_round(self) -> int:
        """The round, from 1."""
        return int(self.row["round"])


class RoundStore:
    """The ``rounds/`` folder of a run.

    Args:
        folder: Where the rounds are.
        rounds: Rounds whose weights are kept.
        dtype: Numbers of the clients' floating-point tensors, a key of ``DTYPES``. The global model is kept as it is.
        kind: The clients' weights, or their updates: differences to the weights that they started from, which lose far
            less to bfloat16.
    """

    def __init__(self, folder: Path, rounds: Store = "none", dtype: str = "float32", kind: str = "weights") -> None:
        self.folder = folder
        self.rounds = rounds
        self.dtype = dtype
        self.kind = kind

    def commit(self, result: RoundResult, record: RoundRecord) -> None:
        """Write a round, its weights too unless ``rounds`` is none; with ``last``, older rounds' weights go."""
        place = self._place(result.server_round)
        draft = place.with_name(f".{place.name}.partial")
        if draft.exists():
            shutil.rmtree(draft)
        draft.mkdir(parents=True)
        if self.rounds != "none":
            weights = draft / "weights"
            weights.mkdir()
            _save(weights / "global.safetensors", record.global_weights)
            _save(weights / "previous_global.safetensors", record.previous_global)
            if record.before_noise is not None:
                _save(weights / "before_noise.safetensors", record.before_noise)
            for client_id, state in record.clients.items():
                self._save_client(weights, client_id, state, record.previous_global)
        (draft / "round.json").write_text(json.dumps(asdict(result), indent=1) + "\n")
        _sync(draft)
        draft.rename(place)
        _sync_folder(self.folder)
        if self.rounds == "last":
            for older in self.stored_rounds():
                if older != result.server_round:
                    self._drop_weights(older)

    def results(self) -> Iterator[RoundResult]:
        """Yield every whole round's result, in order."""
        for place in sorted(self.folder.glob("[0-9]*")):
            yield _read_result(place / "round.json")

    def stored_rounds(self) -> list[int]:
        """Return the rounds whose weights are kept, ascending."""
        return sorted(int(place.parent.name) for place in self.folder.glob("[0-9]*/weights"))

    def read(self, server_round: int) -> RoundRecord:
        """Return a kept round, its weights in the global model's types whatever they were kept in.

        Raises:
            RecordError: The round's weights are not kept, or a file is damaged.
        """
        kept = self.stored_rounds()
        if server_round not in kept:
            have = f"kept are {', '.join(map(str, kept))}" if kept else "none are kept"
            raise RecordError(f"round {server_round} has no weights in {self.folder}: {have}; run with store=all")
        place = self._place(server_round)
        weights = place / "weights"
        p = _read_result(place / "round.json").client_weights
        previous = _load(weights / "previous_global.safetensors")
        before_noise = weights / "before_noise.safetensors"
        return RoundRecord(
            server_round=server_round,
            clients={k: _load_client(weights, k, previous) for k in p},
            client_weights=p,
            previous_global=previous,
            global_weights=_load(weights / "global.safetensors"),
            before_noise=_load(before_noise) if before_noise.exists() else None,
        )

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
                tensor = tensor if dtype is None else tensor.to(dtype)
            kept[name] = tensor
        _save(folder / f"{'update' if updates else 'client'}-{client_id}.safetensors", kept)

    def _drop_weights(self, server_round: int) -> None:
        """Delete a round's weights; renamed first, so that a kill leaves no half of them in sight."""
        gone = self._place(server_round) / ".weights.gone"
        (self._place(server_round) / "weights").rename(gone)
        shutil.rmtree(gone)


def _read_result(path: Path) -> RoundResult:
    try:
        content = json.loads(path.read_text())
        traced = tuple(TracedInput(**_as_tuples(fields)) for fields in content["traced"])
        return RoundResult(content["row"], traced, content["client_weights"], content["left_out"])
    except FileNotFoundError as error:
        raise RecordError(f"no round record at {path}") from error
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise RecordError(f"{path} is damaged ({error}); delete its folder and run again") from error


def _as_tuples(fields: dict[str, Any]) -> dict[str, Any]:
    """Return JSON's lists as the tuples that they were."""
    return fields | {
        "responsible_clients": tuple(fields["responsible_clients"]),
        "ranking": tuple((client_id, score) for client_id, score in fields["ranking"]),
    }


def _save(path: Path, state: Mapping[str, Tensor]) -> None:
    # safetensors refuses tensors that share memory (tied weights) or are not contiguous
    tensors: dict[str, Tensor] = {}
    storages: set[int] = set()
    for name, tensor in state.items():
        kept = tensor.detach().cpu().contiguous()
        storage = kept.untyped_storage().data_ptr()
        tensors[name] = kept.clone() if storage in storages else kept
        storages.add(storage)
    try:
        save_file(tensors, path)
    except SafetensorError as error:
        raise RecordError(f"{path} cannot be written ({error}); earlier rounds stay recorded") from error


def _load(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise RecordError(f"{path} cannot be read ({error}); the round is damaged, use another") from error


def _load_client(folder: Path, client_id: str, previous: Mapping[str, Tensor]) -> dict[str, Tensor]:
    update = folder / f"update-{client_id}.safetensors"
    base = previous if update.exists() else {}
    kept = _load(update if update.exists() else folder / f"client-{client_id}.safetensors")
    floating = {name for name, tensor in kept.items() if tensor.is_floating_point() and name in previous}
    return {
        name: tensor.to(previous[name]) + base.get(name, 0) if name in floating else tensor
        for name, tensor in kept.items()
    }


def _sync(folder: Path) -> None:
    """Bring every file below a folder to the disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
