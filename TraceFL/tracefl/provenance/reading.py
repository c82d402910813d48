"""A round's record, read as a model needs it and checked: what every function that takes a record begins with.

The weights are read under the model's names for its tensors; the clients' weights p_k sum to 1; and before anything is
said that takes a client out of the average, the round's model is compared with that average: wherever the record is no
average, an "exact removal" would be exact for another federation.
"""

import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from tracefl.errors import ModelMismatchError, RecordError, TraceFLError
from tracefl.provenance.comparison import Compared, compare
from tracefl.provenance.given import check_by_id, named, tensors_of
from tracefl.provenance.inputs import Batch
from tracefl.provenance.record import ClientId, RoundRecord
from tracefl.provenance.shares import SHARES_ROUNDING, shares_of
from tracefl.provenance.sources import NamedWeights

_ALIGNMENT = 64  # bytes, of torch's own tensors, and of the widest vector registers
_SUM = 1e-12  # by which weights may miss 1 and are taken as they are


class ReadRound(RoundRecord):
    """A record that was read: names are the model's, weights p_k sum to 1."""

    @cached_property
    def _compared(self) -> Compared:
        return compare(self)

    @property
    def is_average(self) -> bool:
        """True, where that was found; see ``check_average``."""
        if self._compared.refusal is not None:
            raise RecordError(self._compared.refusal)
        return True

    def steps(self, wanted: str) -> Mapping[str, float]:
        """Return, by name, the step to the average that each tensor of floating-point numbers takes.

        It is ``server_step``, or 1 for those whose average was deployed. Only where the server takes a step, some
        entries of every client are read, once.

        Raises:
            RecordError: The step is not linear; the message names ``wanted``.
        """
        rate = self.rate(wanted)
        if rate == 1:
            return {name: 1.0 for name, tensor in self.made.items() if tensor.is_floating_point()}
        return self._compared.steps

    @property
    def average(self) -> Mapping[str, Tensor]:
        """The clients' average A: ``global_weights`` without noise, and without the server's step.

        Raises:
            RecordError: The step is not linear.
        """
        found = dict(self.made)
        for name, rate in self.steps("the clients' average").items():
            if rate != 1:
                start = self.previous_global[name].to(found[name].device, torch.float64)
                found[name] = (start + (found[name].double() - start) / rate).to(found[name].dtype)
        return found


class _ReadClients(Mapping[ClientId, Mapping[str, Tensor]]):
    """The clients of a record, each read under the model's names when it is asked for."""

    def __init__(self, given: Mapping[ClientId, Any], like: Mapping[str, Tensor]) -> None:
        self._given, self._like = given, like

    def __getitem__(self, client_id: ClientId) -> Mapping[str, Tensor]:
        found: Mapping[str, Tensor] = named(f"client {client_id!r}", self._given[client_id], self._like)
        return found

    def __iter__(self) -> Iterator[ClientId]:
        return iter(self._given)

    def __len__(self) -> int:
        return len(self._given)


def read_round(model: nn.Module | None, record: RoundRecord) -> ReadRound:
    """Return a record as a model needs it.

    Names may differ from the model's by a common prefix, and weights be files, NumPy arrays or lists, see
    ``given.named``. Weights of the average that are numbers of examples are divided by their sum, with a warning.

    Args:
        model: The architecture, without wrappers, see ``plain_model``; None to take the names of ``global_weights``.
        record: The record; one that was read is returned as it is.

    Raises:
        TypeError: The clients are no mapping.
        RecordError: A client has no weight, or one that is not positive; or they neither sum to 1 nor are numbers of
            examples; or the server's step is no positive number.
        ModelMismatchError: Names or shapes are not the model's. Those of a client are looked at when it is read.
    """
    if isinstance(record, ReadRound):
        return record
    check_by_id(record.clients)
    step = record.server_step
    if step != "nonlinear" and not (isinstance(step, int | float) and math.isfinite(step) and step > 0):
        raise RecordError(
            f"server_step must be a positive number, the server's learning rate, or 'nonlinear', got {step!r}"
        )
    p = _shares(record)
    like = None if model is None else tensors_of(model)

    def read(owner: str, weights: Any, exact: bool = False) -> Mapping[str, Tensor]:
        if like is None and not isinstance(weights, Mapping):
            raise ModelMismatchError(f"{owner} must be a mapping of tensors here, got {type(weights).__name__}")
        found: Mapping[str, Tensor] = named(owner, weights, weights if like is None else like, exact=exact)
        return _in_types_of(found, like) if like is not None else found

    if record.aggregation is not None and step != 1:
        raise RecordError(
            f"server_step={step!r} is a step to an average, and this round was aggregated by "
            f"{record.aggregation.rule}; leave one of them out"
        )
    weights = read("the record's global model", record.global_weights, exact=True)
    return ReadRound(
        server_round=record.server_round,
        clients=_ReadClients(record.clients, weights if like is None else like),
        client_weights=p,
        previous_global=read("the record's previous global model", record.previous_global),
        global_weights=weights,
        before_noise=None if record.before_noise is None else read("the average before noise", record.before_noise),
        server_step=step,
        clients_dtype=record.clients_dtype,
        aggregation=record.aggregation,
    )


def _in_types_of(weights: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return weights in the model's types, in memory; integers stay."""
    if not isinstance(weights, NamedWeights) and all(
        tensor.dtype == like[name].dtype for name, tensor in weights.items() if name in like
    ):
        return weights
    return {
        name: tensor.to(like[name].dtype) if tensor.is_floating_point() else tensor
        for name, tensor in weights.items()
        if name in like
    }


def _shares(record: RoundRecord) -> dict[ClientId, float]:
    """Return the clients' weights in the average, which sum to 1."""
    if not len(record.clients):
        raise RecordError("the record has no clients")
    try:
        shares = shares_of(record.clients, record.client_weights, "client_weights")
    except ValueError as error:
        raise RecordError(f"{error}. Is a client missing?") from error
    for k, share in shares.items():
        if share == 0 and (record.aggregation is None or record.aggregation.rule == "krum"):
            raise RecordError(
                f"client {k!r} has weight 0: nothing of it is in the average, and its contribution is 0; leave it out "
                "of the record"
            )
    total = math.fsum(float(record.client_weights[k]) for k in shares)
    if total > 1 + SHARES_ROUNDING:
        warnings.warn(
            f"client_weights are taken as numbers of examples and divided by their sum, {int(total)}", stacklevel=5
        )
    return shares if abs(total - 1) > _SUM else {k: float(record.client_weights[k]) for k in shares}


def check_average(record: ReadRound) -> None:
    """Refuse a record that is no average, see ``comparison.compare``; compared once.

    Raises:
        RecordError: The round's model is no average of the clients, nor a step to it, nor what its rule makes of them;
            or the step is not linear.
        ModelMismatchError: A client's weights are not finite.
    """
    assert record.is_average


def aligned(tensor: Tensor) -> Tensor:
    """Return a tensor that begins where a vector register may: itself, or a copy.

    Weights that are mapped from a file begin anywhere in it, and a product's last digits may depend on where its
    factors begin: with them as they are, a stored round would give other digits than the run did.
    """
    return tensor if tensor.device.type != "cpu" or tensor.data_ptr() % _ALIGNMENT == 0 else tensor.clone()


@contextmanager
def holding(model: nn.Module, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Give a model other weights, and its own again afterwards.

    Args:
        model: The model, on whatever device.
        weights: By the names of its state dict.
    """
    own = {}
    with torch.no_grad():
        for name, tensor in tensors_of(model).items():
            other = weights.get(name)
            if other is not None and tensor.is_floating_point() and not torch.equal(other.to(tensor), tensor):
                own[name] = tensor.clone()
        _copy(model, {name: weights[name] for name in own})
    try:
        yield
    finally:
        _copy(model, own)


@torch.no_grad()
def _copy(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    tensors = tensors_of(model) if weights else {}  # again: moving a model to another device makes new ones
    for name, other in weights.items():
        tensors[name].copy_(other)


def why_not_finite(record: ReadRound, batch: Batch, logits: Tensor) -> TraceFLError | ValueError:
    """Return the error that says why the round's model gives ``(B, C)`` logits that are not finite."""
    lost = torch.nonzero(~logits.isfinite().all(dim=1).cpu()).flatten().tolist()
    own = [i for i in lost if not batch.is_finite(i)]
    if own:
        return ValueError(f"input {own[0]} holds values that are not finite; leave out or mend {_count(own)}")
    given = f"the model of round {record.server_round} gives logits that are not finite"
    for name, tensor in record.global_weights.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            blamed = [
                k for k, weights in record.clients.items() if name in weights and not weights[name].isfinite().all()
            ]
            who = f", as client {blamed[0]!r} does: average the round again without it" if blamed else ""
            return ModelMismatchError(f"{given}: it holds values that are not finite in {name!r}{who}")
    negative = [name for name, t in record.global_weights.items() if name.endswith("running_var") and (t < 0).any()]
    if negative:
        return ModelMismatchError(f"{given}: it holds negative variances in {negative[0]!r}")
    return ModelMismatchError(
        f"{given} for {_count(lost)}, though its weights and inputs are: they overflow {logits_type(record)}; take "
        "smaller inputs or a wider type"
    )


def logits_type(record: RoundRecord) -> str:
    """Return the name of the model's type of numbers."""
    dtypes = {str(t.dtype).removeprefix("torch.") for t in record.global_weights.values() if t.is_floating_point()}
    return " and ".join(sorted(dtypes))


def _count(inputs: list[int]) -> str:
    return f"input {inputs[0]}" if len(inputs) == 1 else f"{len(inputs)} inputs"
