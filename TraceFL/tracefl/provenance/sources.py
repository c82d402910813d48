"""The clients' parameters, from memory or files, loaded once, block by block, onto the device that multiplies them."""

import json
import os
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias, TypeVar

import torch
from torch import Tensor

from tracefl.errors import ModelMismatchError, RecordError
from tracefl.provenance.workers import Place

Weights: TypeAlias = Mapping[str, Tensor]

_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_SMALL = 4096  # parameters below which one call for all clients beats one call for each


class SafetensorsFile:
    """A client's weights in a safetensors file, read a few rows at a time; nothing of it is kept.

    Plain reads instead of a memory map: pages of a map would count as this process's memory until the system takes them
    back. The file is opened for each read, so that thousands of clients need no more file handles than one.

    Args:
        path: The file.

    Raises:
        RecordError: It is missing, or not a complete safetensors file.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        begin = b""
        try:
            with self.path.open("rb") as file:
                begin = file.read(8)
                (length,) = struct.unpack("<Q", begin)
                size = os.fstat(file.fileno()).st_size
                if length > size:
                    raise ValueError(f"a header of {length} bytes in a file of {size}")
                header = json.loads(file.read(length))
            self._start = 8 + length
            self._tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
            ends = [entry["data_offsets"][1] for entry in self._tensors.values()]
            if self._start + max(ends, default=0) != size:
                raise ValueError(f"{size} bytes, and its header speaks of {self._start + max(ends, default=0)}")
        except OSError as error:
            raise RecordError(f"{self.path} cannot be read: {error.strerror}") from error
        except (ValueError, KeyError, TypeError, struct.error) as error:
            if _is_pickled(begin) and self.path.suffix != ".npz":
                raise RecordError(
                    f"{self.path} is no safetensors file; load it: torch.load({str(self.path)!r}, weights_only=True)"
                ) from error
            raise RecordError(f"{self.path} is no whole safetensors file ({error})") from error

    @property
    def names(self) -> list[str]:
        """Names of its tensors of floating-point numbers."""
        return [name for name, entry in self._tensors.items() if entry["dtype"] in _DTYPES]

    @property
    def dtypes(self) -> set[torch.dtype]:
        """Types of these tensors."""
        return {_DTYPES[self._tensors[name]["dtype"]] for name in self.names}

    def tensor(self, name: str) -> Tensor:
        """Return a whole tensor.

        Raises:
            RecordError: The file has become shorter.
        """
        shape = self._tensors[name]["shape"]
        return self.rows(name, slice(0, (shape or [1])[0])).reshape(shape)

    def shape(self, name: str) -> tuple[int, ...] | None:
        """Return a tensor's shape, None where the file has no such tensor of floating-point numbers."""
        entry = self._tensors.get(name)
        return tuple(entry["shape"]) if entry is not None and entry["dtype"] in _DTYPES else None

    def rows(self, name: str, rows: slice | Tensor) -> Tensor:
        """Return rows of a tensor, given as a slice or by their numbers.

        Raises:
            RecordError: The file has become shorter.
        """
        if isinstance(rows, Tensor):
            return self.rows(name, slice(0, (self._tensors[name]["shape"] or [1])[0]))[rows.cpu()]
        entry = self._tensors[name]
        shape, dtype = entry["shape"] or [1], _DTYPES[entry["dtype"]]
        row = dtype.itemsize
        for size in shape[1:]:
            row *= size
        tensor = torch.empty((rows.stop - rows.start, *shape[1:]), dtype=dtype)
        target = memoryview(tensor.reshape(-1).view(torch.uint8).numpy().data)
        begin, read = self._start + entry["data_offsets"][0] + rows.start * row, 0
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            while read < len(target):  # Linux reads at most 0x7ffff000 bytes, 2 GiB, at a time
                more = os.preadv(descriptor, [target[read:]], begin + read)
                if not more:
                    raise RecordError(f"{self.path} ends within {name!r}; the round is damaged, use another")
                read += more
        finally:
            os.close(descriptor)
        return tensor


def _is_pickled(begin: bytes) -> bool:
    """Whether a file that begins so is one of ``torch.save``, today's ZIP or a bare pickle, and no damaged other."""
    return begin.startswith(b"PK\x03\x04") or (begin[:1] == b"\x80" and begin[1:2] < b"\x06" and any(begin[3:]))


class InMemory:
    """A client's weights as tensors by name."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights

    def shape(self, name: str) -> tuple[int, ...] | None:
        """Return a tensor's shape, None where there is none of that name."""
        return tuple(self._weights[name].shape) if name in self._weights else None

    def rows(self, name: str, rows: slice | Tensor) -> Tensor:
        """Return rows of a tensor, given as a slice or by their numbers."""
        return picked(self._weights[name].detach(), rows)


class NamedWeights(Mapping[str, Tensor]):
    """Weights by a model's names for them; each is read or converted whenever it is asked for.

    Args:
        held: The weights under their own names.
        names: A model's name to its own.
    """

    def __init__(self, held: SafetensorsFile | Mapping[str, Any], names: Mapping[str, str]) -> None:
        self._held, self._names = held, names
        self.on_disk = isinstance(held, SafetensorsFile)

    def __getitem__(self, name: str) -> Tensor:
        own = self._names[name]
        if isinstance(self._held, SafetensorsFile):
            return self._held.tensor(own)
        return as_tensor(self._held[own])

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def shape(self, name: str) -> tuple[int, ...] | None:
        """Return a tensor's shape, None where there is none of that name."""
        own = self._names.get(name)
        return None if own is None else shape_of(self._held, own)

    def rows(self, name: str, rows: slice | Tensor) -> Tensor:
        """Return rows of a tensor, given as a slice or by their numbers; those of a file without the others."""
        if isinstance(self._held, SafetensorsFile):
            return self._held.rows(self._names[name], rows)
        return picked(self[name].detach(), rows)


def as_tensor(value: Any) -> Tensor:
    """Return a tensor, or a NumPy array as one that shares its memory where it may be written to."""
    if isinstance(value, Tensor):
        return value
    flags = getattr(value, "flags", None)
    return torch.as_tensor(value if flags is None or flags.writeable else value.copy())


Source: TypeAlias = InMemory | NamedWeights | SafetensorsFile


@dataclass(frozen=True, eq=False)
class Part:
    """Some entries of one parameter, and for how many clients they are wanted at once.

    Attributes:
        parameter: Its name in the model.
        rows: Rows of its first dimension, or their numbers.
        taps: Part of its trailing dimensions; empty for all.
        clients_at_once: Clients in one block, at least 1.
        multiple: Clients are padded to a multiple of this.
        dtype: Dtype to which the differences from the center are rounded; None for no rounding.
    """

    parameter: str
    rows: slice | Tensor
    taps: tuple[slice, ...]
    clients_at_once: int
    multiple: int
    dtype: torch.dtype | None


PartT = TypeVar("PartT", bound=Part)


class Clients:
    """The clients of one attribution, as blocks of numbers ready to be multiplied.

    Args:
        weights: Client id to its parameters, or the safetensors file that holds them.
        center: The global model's parameters, on ``device``: subtracted from every client's.
        reference: What the caller wants subtracted, or None. The difference from ``center`` is a last, additional
            client.
        base: Added to what the clients hold, or None: the weights they started from, where they hold differences.
        aliases: Parameter name to its other names, for tied weights, which a file keeps under one name only.
        device: Where the products are computed.
        steps: By a parameter's name, what all of these differences are multiplied by, where it is not 1.
    """

    def __init__(
        self,
        weights: Mapping[Any, Weights | str | Path],
        center: Weights,
        reference: Weights | None,
        base: Weights | None,
        aliases: Mapping[str, Sequence[str]],
        device: torch.device,
        steps: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        self.ids = tuple(weights)
        self.device = device
        self._steps = steps
        self._sources = [_source(client) for client in weights.values()]
        self._from_files = any(
            isinstance(source, SafetensorsFile) or (isinstance(source, NamedWeights) and source.on_disk)
            for source in self._sources
        )
        self._center = InMemory(center)
        self._reference = None if reference is None else _source(reference)
        self._base = None if base is None else _source(base)
        self._aliases = aliases
        self._own_names: dict[str, list[str]] = {}  # parameter to its name in each source

    def __len__(self) -> int:
        return len(self.ids)

    def check(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Refuse clients that lack a traced parameter, or have it in another shape.

        Raises:
            ModelMismatchError: A client does; the message names it and the parameter.
        """
        owners = [(f"client {client_id!r}", source) for client_id, source in zip(self.ids, self._sources, strict=True)]
        owners += [("the reference", self._reference)] if self._reference is not None else []
        owners += [("the base", self._base)] if self._base is not None else []
        for name, shape in shapes.items():
            self._own_names[name] = [self._own_name(owner, source, name, shape) for owner, source in owners]

    def _own_name(self, owner: str, source: Source, name: str, shape: tuple[int, ...]) -> str:
        """Return the name under which a parameter is kept: files keep tied weights under one name only."""
        shapes = {own: source.shape(own) for own in (name, *self._aliases.get(name, ()))}
        there = [own for own, found in shapes.items() if found is not None]
        if not there:
            raise ModelMismatchError(f"{owner} lacks parameter {name!r} of the global model, shape {shape}")
        if shapes[there[0]] != shape:
            raise ModelMismatchError(
                f"{owner} has parameter {name!r} in shape {shapes[there[0]]}, the global model in {shape}"
            )
        return there[0]

    def staged(self, parts: Iterable[tuple[Place, PartT]]) -> Iterator[tuple[Place, PartT, slice, Tensor]]:
        """Yield the parameters less the center's, for one part of the model and a few clients at a time.

        From files, the next block is read while this one is used. Several threads may each have an iterator.

        Yields:
            The part, with its place in the work; the clients' places; and ``(clients or more, rows, ...)`` on the
            device, valid until the next one. Padding holds arbitrary values, and the last place is the center less the
            reference.
        """
        jobs = ((place, part, chunk) for place, part in parts for chunk in self._chunks(part.clients_at_once))
        memory = _Memory(self.device), _Memory(self.device)  # one is filled while the other is read
        if not self._from_files:
            for place, part, chunk in jobs:
                yield place, part, chunk, self._stage(part, chunk, memory[0])
            return
        with ThreadPoolExecutor(1) as reader:
            waiting: tuple[Place, PartT, slice, Future[Tensor]] | None = None
            for turn, (place, part, chunk) in enumerate(jobs):
                coming = reader.submit(self._stage, part, chunk, memory[turn % 2])
                if waiting is not None:
                    yield *waiting[:3], waiting[3].result()
                waiting = place, part, chunk, coming
            if waiting is not None:
                yield *waiting[:3], waiting[3].result()

    def difference(self, k: int, name: str, rows: slice | None = None) -> Tensor:
        """Return what client number k has of a parameter, less the reference's: a vector on the device.

        Args:
            k: Which client.
            name: The parameter.
            rows: Rows of its first dimension; None for all.
        """
        own = self._own_names[name]
        if rows is None:
            rows = slice(0, len(self._center.rows(name, slice(0, None))))
        like = self._center.rows(name, slice(0, 1))
        found = self._sources[k].rows(own[k], rows).to(like)
        if self._base is not None:
            found = found + self._base.rows(name, rows).to(like)
        if self._reference is not None:
            found = found - self._reference.rows(name, rows).to(like)
        return found.flatten() * self._steps.get(name, 1.0)

    def _chunks(self, size: int) -> Iterator[slice]:
        for start in range(0, len(self) + 1, size):
            yield slice(start, min(start + size, len(self) + 1))

    def _stage(self, part: Part, chunk: slice, memory: "_Memory") -> Tensor:
        name, rows, taps = part.parameter, part.rows, part.taps
        center = _taps(self._center.rows(name, rows), taps)
        offset = center
        if self._base is not None:
            offset = center - _taps(self._base.rows(name, rows), taps).to(center)
        width = -(-(chunk.stop - chunk.start) // part.multiple) * part.multiple
        block = memory.block((width, *center.shape), part.dtype or center.dtype)
        sources, names = self._sources[chunk], self._own_names[name][chunk]
        raw = [_taps(source.rows(own, rows), taps) for source, own in zip(sources, names, strict=False)]
        self._fill(block[: len(raw)], raw, offset)
        if chunk.stop > len(self):
            reference = None if self._reference is None else _taps(self._reference.rows(name, rows), taps).to(center)
            block[len(raw)] = center if reference is None else center - reference
        if name in self._steps:
            block *= self._steps[name]
        return block

    def _fill(self, block: Tensor, raw: Sequence[Tensor], offset: Tensor) -> None:
        """Write each client's part, less the offset, into its row of the block: one pass over what is read."""
        plain = offset.numel() < _SMALL and all(t.device == offset.device and t.dtype == block.dtype for t in raw)
        if raw and plain:
            torch.stack(tuple(raw), out=block)
            block -= offset
            return
        for row, tensor in zip(block.unbind(), raw, strict=True):
            if tensor.device != offset.device:
                pinned = tensor.device.type == "cpu" and offset.is_cuda
                tensor = tensor.contiguous().pin_memory() if pinned else tensor
                tensor = tensor.to(offset.device, non_blocking=pinned)
            torch.sub(tensor, offset, out=row)


class _Memory:
    """Memory that is reused for every block: the system would have to clear new memory each time."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._held: dict[torch.dtype, Tensor] = {}

    def block(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Return a block of it, which still holds what the previous block left."""
        size = torch.Size(shape).numel()
        held = self._held.get(dtype)
        if held is None or held.numel() < size:
            held = self._held[dtype] = torch.zeros(size, dtype=dtype, device=self._device)
        return held[:size].view(shape)


def _source(weights: Weights | str | Path) -> Source:
    if isinstance(weights, str | Path):
        return SafetensorsFile(weights)
    return weights if isinstance(weights, NamedWeights) else InMemory(weights)


def shape_of(held: SafetensorsFile | Mapping[str, Any], name: str) -> tuple[int, ...] | None:
    """Return the shape of a tensor or an array."""
    if isinstance(held, SafetensorsFile):
        return held.shape(name)
    return tuple(getattr(held[name], "shape", ()))


def picked(tensor: Tensor, rows: slice | Tensor) -> Tensor:
    """Return rows of a tensor, given as a slice or by their numbers; a number is a row."""
    tensor = tensor.reshape(1) if tensor.ndim == 0 else tensor
    return tensor[rows.to(tensor.device) if isinstance(rows, Tensor) else rows]


def _taps(tensor: Tensor, taps: tuple[slice, ...]) -> Tensor:
    return tensor[(slice(None),) * (tensor.ndim - len(taps)) + taps] if taps else tensor
