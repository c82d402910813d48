"""What one client's reply may hold: it alone is left out, by name, and the others are averaged without it."""

import io
import logging
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from numpy.lib import format as npy

from tests.helpers.rounds_by_hand import Server, replied
from tracefl.learning.settings import TrainingSettings

pytestmark = pytest.mark.usefixtures("task")

MODEL = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4)).eval()
MODEL.register_buffer("positions", torch.arange(3))
GOOD = {"num-examples": 10, "train-loss": 0.5}
COUNTER, VARIANCE, TABLE = "1.num_batches_tracked", "1.running_var", "positions"


def state(seed):
    """What an honest client sends: the model a little changed, its counter two steps on."""
    draw = torch.Generator().manual_seed(seed)
    found = {}
    for name, tensor in MODEL.state_dict().items():
        changed = 0.1 * torch.rand(tensor.shape, generator=draw) if tensor.is_floating_point() else 2 * (name != TABLE)
        found[name] = tensor + changed
    return found | {"1.bias": found["0.bias"]}


def server(**plan):
    training = TrainingSettings(epochs=2, optimizer="adam", lr=0.1, batch_size=4)  # 6 steps of 10 examples
    defaults = {
        "clients_per_round": 4,
        "initial_weights": MODEL.state_dict(),
        "training": training,
        "trainable": [name for name, _ in MODEL.named_parameters()],
        "tied": {"1.bias": "0.bias"},
        "max_update_norm": 5.0,
        "num_examples": {"0": 10},
    }
    return Server(**(defaults | plan))


def with_(name, value):
    """An honest client's weights, one of them replaced: by an array, a tensor, or what makes one of its own."""
    honest = state(0)
    value = value(honest[name]) if callable(value) else value
    arrays = {each: Array(tensor.numpy()) for each, tensor in honest.items()}
    return replied(arrays | {name: value if isinstance(value, Array) else Array(torch.as_tensor(value).numpy())})


def file(shape, descr="<f4", payload=b""):
    """What ``numpy.save`` would write for that header, and then some bytes."""
    stream = io.BytesIO()
    npy.write_array_header_1_0(stream, {"descr": descr, "fortran_order": False, "shape": shape})
    return stream.getvalue() + payload


def pickled():
    stream = io.BytesIO()
    np.save(stream, np.array([print], dtype=object), allow_pickle=True)
    return stream.getvalue()


def weight(dtype="float32", shape=(4, 3), kind="numpy.ndarray", data=None):
    """The first layer's weights: what is said of them, and the bytes."""
    return with_("0.weight", Array(dtype, shape, kind, file((4, 3), payload=bytes(48)) if data is None else data))


def fill(number):
    return lambda tensor: torch.full_like(tensor, number)


def metrics(**changed):
    return replied(state(0), GOOD | {name.replace("_", "-"): value for name, value in changed.items()})


def without(name):
    return replied({each: tensor for each, tensor in state(0).items() if each != name})


def another_kind(message):
    reply = replied(state(0))(message)
    del reply.content["arrays"]
    reply.content["arrays"] = ConfigRecord({"0.weight": 1.0})
    return reply


class _Breaks:
    """A reply that cannot even be looked at."""

    def __init__(self, message, error):
        self.metadata = SimpleNamespace(reply_to_message_id=message.metadata.message_id)
        self._error = error

    def has_error(self):
        return False

    @property
    def content(self):
        raise self._error


OTHER = "weights of another shape or type, first 0.weight"
METRICS = "other metrics than a whole num-examples and a train-loss, first "
RECORDS = "other records than arrays, metrics and client, first "
HOSTILE = {
    # shapes and types
    "broadcast": (with_("0.weight", torch.zeros(1)), f"{OTHER}: float32 1 in place of float32 4x3"),
    "broadcast in silence": (weight(data=file((1,), payload=bytes(4))), f"{OTHER}: its header says float32 1 in place"),
    "a row": (with_("0.weight", torch.zeros(3)), OTHER),
    "transposed": (with_("0.weight", lambda tensor: tensor.t().contiguous()), OTHER),
    "transposed in silence": (weight(data=file((3, 4), payload=bytes(48))), f"{OTHER}: its header says float32 3x4"),
    "bigger": (with_("0.weight", torch.zeros(4, 4)), OTHER),
    "int8": (with_("0.weight", torch.zeros(4, 3, dtype=torch.int8)), f"{OTHER}: int8 4x3 in place of float32 4x3"),
    "int8 in silence": (weight(data=file((4, 3), "|i1", bytes(12))), f"{OTHER}: its header says int8"),
    "bool": (with_("0.weight", torch.zeros(4, 3, dtype=torch.bool)), OTHER),
    "float16": (with_("0.weight", torch.zeros(4, 3, dtype=torch.float16)), OTHER),
    "float64": (with_("0.weight", torch.zeros(4, 3, dtype=torch.float64)), OTHER),
    "complex": (with_("0.weight", torch.zeros(4, 3, dtype=torch.complex64)), OTHER),
    "complex in silence": (weight(data=file((4, 3), "<c8", bytes(96))), f"{OTHER}: its header says complex64"),
    "other order of bytes": (weight(data=file((4, 3), ">f4", bytes(48))), f"{OTHER}: its header says >f4"),
    "a float counter": (with_(COUNTER, torch.tensor(2.0)), f"weights of another shape or type, first {COUNTER}"),
    "10^15 floats": (weight(shape=(10**15,), data=file((10**15,))), OTHER),
    "10^15 floats in silence": (weight(data=file((10**15,))), f"{OTHER}: its header says float32 1000000000000000"),
    "negative sizes": (weight(data=file((-1, -12), payload=bytes(48))), OTHER),
    "too few bytes": (weight(data=file((4, 3), payload=bytes(44))), "weights of another length, first 0.weight: 44 b"),
    "too many bytes": (weight(data=file((4, 3), payload=bytes(10**6))), "weights of another length, first 0.weight"),
    "no bytes": (weight(data=b""), "weights that cannot be read, first 0.weight"),
    "no array": (weight(data=b"no array"), "weights that cannot be read, first 0.weight"),
    "a header of nonsense": (
        weight(data=b"\x93NUMPY\x01\x00\x04\x00{[}\n"),
        "weights that cannot be read, first 0.weight: ",
    ),
    "a deep header": (
        weight(data=b"\x93NUMPY\x01\x00\x40\x1f" + b"[" * 8000),
        "weights that cannot be read, first 0.weight: ",
    ),
    "another version": (weight(data=b"\x93NUMPY\x02\x00" + bytes(60)), "weights that cannot be read, first 0.weight"),
    "objects": (weight(data=pickled()), f"{OTHER}: its header says object"),
    "a pickle": (weight(kind="pickle", data=b"cos\nsystem\n(S'true'\ntR."), OTHER),
    # names and records
    "one fewer": (without("0.bias"), "weights of another model, first 0.bias"),
    "one more": (replied(state(0) | {"more": torch.ones(1)}), "weights of another model, first more"),
    "none": (replied({}), "weights of another model, first 0.bias"),
    "a second ArrayRecord": (replied(state(0), again=ArrayRecord(state(0))), f"{RECORDS}again"),
    "a second MetricRecord": (replied(state(0), again=MetricRecord(GOOD)), f"{RECORDS}again"),
    "another kind of record": (another_kind, f"{RECORDS}arrays"),
    "no records": (lambda message: Message(RecordDict(), reply_to=message), f"{RECORDS}arrays"),
    "another's id": (replied(state(0), client_id="1"), "client 1 answered in its place"),
    "more words": (
        replied(state(0), client=ConfigRecord({"client-id": "0", "more": "words"})),
        "client 0 answered in its place, or said more",
    ),
    # metrics
    "one more metric": (metrics(more=1.0), f"{METRICS}more"),
    "a list": (metrics(train_loss=[0.5, 0.5]), f"{METRICS}train-loss"),
    "a whole loss": (metrics(train_loss=1), f"{METRICS}train-loss"),
    "no loss": (replied(state(0), {"num-examples": 10}), f"{METRICS}train-loss"),
    "no examples": (replied(state(0), {"train-loss": 0.5}), f"{METRICS}num-examples"),
    "no metrics": (replied(state(0), {}), METRICS),
    "NaN loss": (metrics(train_loss=float("nan")), "a training loss of nan"),
    "huge loss": (metrics(train_loss=1.7e308), "a training loss of 1.7e"),
    "negative loss": (metrics(train_loss=-0.5), "a training loss of -0.5"),
    "infinite loss": (metrics(train_loss=float("-inf")), "a training loss of -inf"),
    "a fraction of examples": (metrics(num_examples=10.0), f"{METRICS}num-examples"),
    "other examples": (metrics(num_examples=11), "it reports 11 examples, expected 10"),
    "negative examples": (metrics(num_examples=-5), "it reports -5 examples, expected 10"),
    # numbers
    "NaN": (with_("0.weight", fill(torch.nan)), "weights that are not finite, first in 0.weight"),
    "infinite": (with_("1.running_mean", fill(torch.inf)), "weights that are not finite, first in 1.running_mean"),
    "infinities that cancel": (
        with_("0.bias", torch.tensor([torch.inf, -torch.inf, 0.0, 0.0])),
        "weights that are not finite, first in 0.bias",
    ),
    "negative variance": (with_(VARIANCE, fill(-1000.0)), f"a negative variance, -1000 in {VARIANCE}"),
    "slightly negative variance": (with_(VARIANCE, torch.tensor([1, 1, 1, -1e-30])), "a negative variance, -1e-30 in"),
    "huge negative counter": (with_(COUNTER, torch.tensor(-(2**62))), "a counter that grew by -4611686018427387904"),
    "the lowest counter": (with_(COUNTER, torch.tensor(-(2**63))), "a counter that grew by -9223372036854775808"),
    "huge counter": (with_(COUNTER, torch.tensor(2**62)), "a counter that grew by 4611686018427387904 in at most 6 st"),
    "one step too many": (with_(COUNTER, torch.tensor(7)), "a counter that grew by 7 in at most 6 steps"),
    "another table": (with_(TABLE, torch.tensor([0, 1, 3])), "other numbers in positions, which training leaves"),
    "two values of one tensor": (with_("1.bias", torch.ones(4)), "other weights of 1.bias than of 0.bias, which are o"),
    # what is no reply at all
    "an error": (
        lambda message: Message(Error(1, "Traceback\nValueError: no data"), reply_to=message),
        "ValueError: n",
    ),
    "an error without words": (lambda message: Message(Error(1), reply_to=message), "no reason given"),
    "a RuntimeError": (lambda message: _Breaks(message, RuntimeError("boom")), "a reply that cannot be read: RuntimeE"),
    "a MemoryError": (lambda message: _Breaks(message, MemoryError()), "a reply that cannot be read: MemoryError"),
    "a KeyError": (lambda message: _Breaks(message, KeyError("key")), "a reply that cannot be read: KeyError: 'key'"),
    "recursion": (lambda message: _Breaks(message, RecursionError()), "a reply that cannot be read: RecursionError"),
}


@pytest.mark.parametrize("hostile", [pytest.param(hostile, id=name) for name, hostile in HOSTILE.items()])
def test_a_hostile_reply_leaves_out_its_client_alone(hostile, caplog):
    reply, reason = hostile
    honest = {"1": replied(state(1)), "2": replied(state(2)), "10": replied(state(10))}
    attacked = server()
    with caplog.at_level(logging.WARNING):
        average = attacked.round({"0": reply, **honest})
    as_if_not_there = server(clients_per_round=3, nodes={"1": 8, "2": 7, "10": 8}).round(honest)
    assert average.keys() == as_if_not_there.keys()
    assert all(torch.equal(average[name], as_if_not_there[name]) for name in average)
    (outcome,) = attacked.told.outcomes
    assert list(outcome.record.clients) == ["1", "2", "10"]
    assert list(outcome.dropped) == ["0"]
    assert outcome.dropped["0"].startswith(reason)
    assert f"round=1 client 0 is dropped: {outcome.dropped['0']}" in caplog.messages
    assert outcome.capped == {}
