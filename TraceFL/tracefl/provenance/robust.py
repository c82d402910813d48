"""A round that a robust rule aggregated, made again by that rule: of all its clients, or without some."""

from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor

from tracefl.errors import ModelMismatchError
from tracefl.provenance.aggregation import mean_of
from tracefl.provenance.record import ClientId, RoundRecord


def aggregated(record: RoundRecord, without: Sequence[ClientId] = ()) -> dict[str, Tensor]:
    """Return what the round's rule makes of its clients but some: floating-point weights and buffers, in float64.

    All of the clients are in memory at once.

    Args:
        record: The round, with an ``aggregation``.
        without: The clients that are left out.

    Raises:
        ModelMismatchError: A client lacks a tensor, or has it in another shape, or values that are not finite.
        RecordError: The others are fewer than the rule needs.
        KeyError: There is no such client.
    """
    unknown = [client_id for client_id in without if client_id not in record.client_weights]
    if unknown:
        raise KeyError(unknown[0])
    assert record.aggregation is not None
    clients, like = _states(record, without)
    return record.aggregation.aggregate(clients, record.client_weights, like)


def aggregated_sizes(record: RoundRecord) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Yield by name what the rule makes of all clients, and the largest absolute value that each entry is the mean of.

    Arguments and errors are those of ``aggregated``.
    """
    assert record.aggregation is not None
    clients, like = _states(record, ())
    for name, values, weights in record.aggregation.kept(clients, record.client_weights, like):
        yield name, mean_of(values, weights), values.abs().amax(dim=0)


def _states(
    record: RoundRecord, without: Sequence[ClientId]
) -> tuple[dict[ClientId, dict[str, Tensor]], dict[str, Tensor]]:
    """Return the floating-point tensors of all clients but some, and those of the global model."""
    like = {name: weights for name, weights in record.global_weights.items() if weights.is_floating_point()}
    clients = {}
    for client_id, weights in record.clients.items():
        if client_id not in without:
            clients[client_id] = {
                name: tensor_of(client_id, weights, name, tuple(made.shape)) for name, made in like.items()
            }
            for name, tensor in clients[client_id].items():
                if not tensor.isfinite().all():
                    raise not_finite(client_id, name)
    return clients, like


def tensor_of(client_id: ClientId, weights: Mapping[str, Tensor], name: str, shape: tuple[int, ...]) -> Tensor:
    """Return a tensor of a client's weights.

    Raises:
        ModelMismatchError: It is not there, or has another shape.
    """
    if name not in weights:
        raise ModelMismatchError(f"client {client_id!r} lacks {name!r} of the global model, shape {shape}")
    own = weights[name]  # once: it may be read from a file
    if tuple(own.shape) != shape:
        raise ModelMismatchError(
            f"client {client_id!r} has {name!r} in shape {tuple(own.shape)}, the global model in {shape}"
        )
    return own


def not_finite(client_id: ClientId, name: str) -> ModelMismatchError:
    """Return the error of a client with values in a tensor that are not finite."""
    return ModelMismatchError(
        f"client {client_id!r} holds values that are not finite, in {name!r}: leave it out of the round"
    )
