"""What clients answer, checked before anything is made of it: in a deployment they are anybody's programs.

The records are Flower's, known here by what can be asked of them; this file imports no Flower.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from flwr.app import ArrayRecord, Message

_ID = re.compile(r"0|[1-9][0-9]{0,4}")  # 0 to 99999, each written in one way
_NUMBERS = re.compile(r"(b?float|u?int)\d+|bool")
HIGHEST_ID = 99_999


def read_identity(records: Any, num_classes: int) -> tuple[str, list[int]]:
    """Return who a deployed client says it is, and its examples of each class.

    Args:
        records: Of its answer, Flower's ``RecordDict``.
        num_classes: Classes of the server's data.

    Returns:
        The client's id, empty where its SuperNode has none, and as many numbers as there are classes.

    Raises:
        ValueError: The answer is not of that kind; in words.
    """
    who = records.config_records.get("client", {})
    client_id, counts = who.get("client-id"), who.get("label-counts")
    if not isinstance(client_id, str) or (client_id and not _ID.fullmatch(client_id)):
        raise ValueError(f"its partition-id must be 0 to {HIGHEST_ID}, got {str(client_id)[:20]!r}")
    if not isinstance(counts, Sequence) or not all(isinstance(n, int) and n >= 0 for n in counts):
        raise ValueError("it did not say how many examples it has of each class")
    if len(counts) != num_classes or not sum(counts):
        raise ValueError(f"it has {sum(counts)} examples of {len(counts)} classes, and the server has {num_classes}")
    return client_id, list(counts)


def why_not(records: Any, client_id: str, previous: Mapping[str, Any], num_examples: int | None) -> str | None:
    """Return why what a client sent after its training cannot be averaged, None where it can.

    Args:
        records: Of its reply, Flower's ``RecordDict``.
        client_id: The client that was asked.
        previous: The global weights that it was sent, Flower's arrays by name.
        num_examples: Examples that it trains on, None where it is not known.
    """
    arrays = records.array_records.get("arrays")
    metrics = records.metric_records.get("metrics", {})
    answered_by = records.config_records.get("client", {}).get("client-id")
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
        return f"weights of {count} examples, and it has {'at least 1' if num_examples is None else num_examples}"
    return None


def arrays_of(reply: Message) -> ArrayRecord:
    """Return the weights that a client sent."""
    return reply.content.array_records["arrays"]


def num_examples_of(reply: Message) -> float:
    """Return what a client counts for in the average: its examples, where nothing has made it lighter."""
    return float(str(reply.content.metric_records["metrics"]["num-examples"]))


def weigh(reply: Message, factor: float) -> None:
    """Let a client count in the average for so many times its examples."""
    reply.content.metric_records["metrics"]["num-examples"] = factor * num_examples_of(reply)


def error_cause(reason: str | None) -> str:
    """Return what went wrong, out of a traceback that Ray and Flower wrapped: its last line, without their marks."""
    lines = [line.strip() for line in (reason or "").splitlines() if line.strip()]
    if not lines:
        return "no reason given"
    return re.sub(r"\x1b\[\d*m|^<class '[\w.]+'>:<'|'>$", "", lines[-1])
