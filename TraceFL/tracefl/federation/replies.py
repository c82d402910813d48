"""What clients send, checked as a whole before anything is made of it: a deployed client is untrusted.

A reply is read by itself, against what its client was sent and what was agreed; whatever else it holds, whatever it
lacks, and whatever goes wrong while it is read leaves out that client alone. ``bounds.py`` then compares the replies of
a round with one another.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from torch import Tensor

from tracefl.common.words import repeated
from tracefl.federation.arrays import read_arrays
from tracefl.federation.identities import HIGHEST_ID, is_client_id
from tracefl.federation.messages import ARRAYS, CLIENT, CLIENT_ID, LOSS, METRICS, NUM_EXAMPLES
from tracefl.learning.settings import TrainingSettings

MOST_EXAMPLES = 10**12
"""More than any client has: what a client says it has beyond this is refused."""

_MOST_LOSS = 1e30  # nats; a client whose training diverges stays below, in float32
_RECORDS: dict[str, type] = {ARRAYS: ArrayRecord, METRICS: MetricRecord, CLIENT: ConfigRecord}
_METRICS: dict[str, type] = {NUM_EXAMPLES: int, LOSS: float}


@dataclass(frozen=True)
class Sent:
    """What a client was sent in a round, and so what its reply may be.

    Attributes:
        client_id: The client.
        declared: The model's own state dict: the names, shapes and types of all weights.
        previous: The global weights that it started from, by the same names.
        frozen: Names of the parameters that are not trained.
        tied: Name of a tensor to the first name of the same one.
        num_examples: Number of examples it trains on; None where unknown.
        training: How it trains: what it counts grows by no more than its steps.
    """

    client_id: str
    declared: Mapping[str, Tensor]
    previous: Mapping[str, Tensor]
    frozen: Collection[str]
    tied: Mapping[str, str]
    num_examples: int | None
    training: TrainingSettings

    def most_steps(self, num_examples: int) -> int:
        """Return the most steps that training on so many examples takes."""
        return self.training.epochs * ceil(num_examples / self.training.batch_size)


@dataclass(frozen=True)
class Trained:
    """A sound reply to a training message.

    Attributes:
        state: The client's state dict, in the order, shapes and types of the model's.
        num_examples: Number of examples that it trained on, as it says; where it is averaged, its weight.
        loss: Its training loss, in nats.
        arrays: The weights as they were sent, in Flower's form.
    """

    state: Mapping[str, Tensor]
    num_examples: float
    loss: float
    arrays: ArrayRecord = field(repr=False)


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
    who = content.config_records.get(CLIENT, {})
    client_id, counts = who.get(CLIENT_ID), who.get("label-counts")
    if not isinstance(client_id, str) or (client_id and not is_client_id(client_id)):
        raise ValueError(f"its partition-id must be 0 to {HIGHEST_ID}, got {repeated(client_id, 20)!r}")
    if not isinstance(counts, Sequence) or not all(type(n) is int and 0 <= n <= MOST_EXAMPLES for n in counts):
        raise ValueError("it did not say how many examples it has of each class")
    if len(counts) != num_classes or not sum(counts):
        raise ValueError(f"it has {sum(counts)} examples of {len(counts)} classes, and the server has {num_classes}")
    return client_id, list(counts)


def read_reply(reply: Message, sent: Sent) -> Trained:
    """Return what a client sent after its training.

    Args:
        reply: The client's reply, without an error.
        sent: What it replies to.

    Raises:
        ValueError: It is not what was agreed; the message is the reason, in words that may be the client's.
    """
    content = reply.content
    kinds = {name: type(record) for name, record in content.items()}
    if kinds != _RECORDS:
        odd = sorted(kinds.items() ^ _RECORDS.items(), key=str)[0][0]
        raise ValueError(f"other records than arrays, metrics and client, first {odd}")
    who = content[CLIENT]
    if dict(who) != {CLIENT_ID: sent.client_id}:
        raise ValueError(f"client {repeated(who.get('client-id'), 20)} answered in its place, or said more")
    num_examples, loss = _read_metrics(content.metric_records[METRICS], sent)
    arrays = content.array_records[ARRAYS]
    state = read_arrays(arrays, sent.declared)
    for name, tensor in state.items():
        _check_numbers(name, tensor, sent, num_examples)
    for name, first in sent.tied.items():
        # One of the two names is what the model takes, and the other could be what its attribution is asked of.
        if not state[name].equal(state[first]):
            raise ValueError(f"other weights of {name} than of {first}, which are one tensor")
    return Trained(state, num_examples, loss, arrays)


def _read_metrics(metrics: MetricRecord, sent: Sent) -> tuple[int, float]:
    """Return the number of examples and the training loss of a reply.

    Raises:
        ValueError: One is missing, of another type or out of range, or there are more.
    """
    kinds = {name: type(value) for name, value in metrics.items()}
    if kinds != _METRICS:
        odd = sorted(kinds.items() ^ _METRICS.items(), key=str)[0][0]
        raise ValueError(f"other metrics than a whole num-examples and a train-loss, first {odd}")
    num_examples, loss = metrics[NUM_EXAMPLES], metrics[LOSS]
    assert isinstance(num_examples, int)
    assert isinstance(loss, float)
    if not 0 <= loss <= _MOST_LOSS:
        raise ValueError(f"a training loss of {loss}")
    if not 1 <= num_examples <= MOST_EXAMPLES or sent.num_examples not in (None, num_examples):
        expected = f"1 to {MOST_EXAMPLES}" if sent.num_examples is None else sent.num_examples
        raise ValueError(f"it reports {num_examples} examples, expected {expected}")
    return num_examples, loss


def _check_numbers(name: str, tensor: Tensor, sent: Sent, num_examples: int) -> None:
    """Refuse numbers that no training leaves.

    Raises:
        ValueError: A number is not finite, a variance negative, a counter out of range, or what is not trained changed.
    """
    if not tensor.is_floating_point():
        if not tensor.ndim:
            _check_counter(name, tensor, sent, num_examples)
        elif not tensor.equal(sent.previous[name].to(tensor.dtype)):  # such as positions: what looks them up would fail
            raise ValueError(f"other numbers in {name}, which training leaves as they are")
        return
    # The sum is not finite where a number is not, and takes far less time than looking at each.
    if not tensor.sum().isfinite() and not tensor.isfinite().all():
        raise ValueError(f"weights that are not finite, first in {name}")
    if name.endswith("running_var") and (tensor < 0).any():
        raise ValueError(f"a negative variance, {float(tensor.min()):g} in {name}")
    if name in sent.frozen and not tensor.equal(sent.previous[name].to(tensor.dtype)):
        raise ValueError(f"other weights of {name}, which is not trained")


def _check_counter(name: str, tensor: Tensor, sent: Sent, num_examples: int) -> None:
    """Refuse a whole number that is no count of training's steps on top of what was sent.

    Raises:
        ValueError: It is below what was sent, or above that and the steps of a training.
    """
    before = sent.previous[name].to(tensor.dtype).long()  # as the client's model takes an average of counters
    grown, steps = int(tensor.long() - before), sent.most_steps(num_examples)
    if not 0 <= grown <= steps:
        raise ValueError(f"a counter that grew by {grown} in at most {steps} steps, {name}")


def error_cause(reason: str | None) -> str:
    """Return the last line of a traceback that Ray and Flower wrapped, without their markup."""
    lines = [line.strip() for line in (reason or "").splitlines() if line.strip()]
    if not lines:
        return "no reason given"
    return re.sub(r"\x1b\[\d*m|^<class '[\w.]+'>:<'|'>$", "", lines[-1])
