"""Checks of what clients send, before anything is computed from it: a deployed client is untrusted."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from flwr.app import ArrayRecord, Message
from torch import Tensor

from tracefl.federation.identities import HIGHEST_ID, is_client_id

_NUMBERS = re.compile(r"(b?float|u?int)\d+|bool")


def read_identity(content: Any, num_classes: int) -> tuple[str, list[int]]:
    """Return the id that a deployed client reports, and its number of examples of each class.

    Args:
        content: The answer's content, Flower's ``RecordDict``.
        num_classes: Number of classes of the server's data.

    Returns:
        The client's id, empty if its SuperNode has none, and ``num_classes`` numbers.

    Raises:
        ValueError: The answer is malformed; the message is the reason.
    """
    who = content.config_records.get("client", {})
    client_id, counts = who.get("client-id"), who.get("label-counts")
    if not isinstance(client_id, str) or (client_id and not is_client_id(client_id)):
        raise ValueError(f"its partition-id must be 0 to {HIGHEST_ID}, got {str(client_id)[:20]!r}")
    if not isinstance(counts, Sequence) or not all(isinstance(n, int) and n >= 0 for n in counts):
        raise ValueError("it did not say how many examples it has of each class")
    if len(counts) != num_classes or not sum(counts):
        raise ValueError(f"it has {sum(counts)} examples of {len(counts)} classes, and the server has {num_classes}")
    return client_id, list(counts)


def read_weights(
    reply: Message, client_id: str, previous: Mapping[str, Any], num_examples: int | None
) -> dict[str, Tensor]:
    """Return the state dict that a client sent after its training.

    Args:
        reply: The client's reply.
        client_id: The client that was asked.
        previous: The global weights that it was sent, Flower's arrays by name.
        num_examples: Number of examples it trains on; None where unknown.

    Raises:
        ValueError: The reply cannot be averaged; the message is the reason.
    """
    if reply.has_error():
        raise ValueError(error_cause(reply.error.reason))
    reason = rejection_reason(reply.content, client_id, previous, num_examples)
    if reason is not None:
        raise ValueError(reason)
    try:
        state = arrays_of(reply).to_torch_state_dict()
    except (ValueError, TypeError, EOFError) as error:
        raise ValueError(f"weights that cannot be read: {error}") from error
    for name, tensor in state.items():
        # The sum is not finite where a number is not, and takes far less time than looking at each.
        if not tensor.sum().isfinite() and not tensor.isfinite().all():
            raise ValueError(f"weights that are not finite, first in {name}")
    return dict(state)


def rejection_reason(content: Any, client_id: str, previous: Mapping[str, Any], num_examples: int | None) -> str | None:
    """Return why a reply to a training message cannot be averaged, None if it can; see ``read_weights``.

    Args:
        content: The reply's content, Flower's ``RecordDict``.
        client_id: The client that was asked.
        previous: The global weights that it was sent.
        num_examples: Number of examples it trains on; None where unknown.
    """
    arrays = content.array_records.get("arrays")
    metrics = content.metric_records.get("metrics", {})
    answered_by = content.config_records.get("client", {}).get("client-id")
    if answered_by != client_id:
        return f"client {str(answered_by)[:20]} answered in its place"
    if arrays is None or not isinstance(metrics.get("train-loss"), int | float):
        return "a reply without weights or training loss"
    odd = sorted(set(arrays) ^ set(previous))
    if odd:
        return f"weights of another model, first {odd[0]}"
    for name, array in arrays.items():
        if tuple(array.shape) != tuple(previous[name].shape) or not _NUMBERS.fullmatch(array.dtype):
            return f"weights of another shape or type, first {name}"
    count = metrics.get("num-examples")
    if not isinstance(count, int) or count < 1 or num_examples not in (None, count):
        return f"it reports {count} examples, expected {'at least 1' if num_examples is None else num_examples}"
    return None


def arrays_of(reply: Message) -> ArrayRecord:
    """Return the weights that a client sent."""
    return reply.content.array_records["arrays"]


def num_examples_of(reply: Message) -> float:
    """Return a client's weight in the average before normalizing: its number of examples, unless scaled."""
    return float(str(reply.content.metric_records["metrics"]["num-examples"]))


def scale_weight(reply: Message, factor: float) -> None:
    """Multiply a client's weight in the average by a factor."""
    reply.content.metric_records["metrics"]["num-examples"] = factor * num_examples_of(reply)


def error_cause(reason: str | None) -> str:
    """Return the last line of a traceback that Ray and Flower wrapped, without their markup."""
    lines = [line.strip() for line in (reason or "").splitlines() if line.strip()]
    if not lines:
        return "no reason given"
    return re.sub(r"\x1b\[\d*m|^<class '[\w.]+'>:<'|'>$", "", lines[-1])
