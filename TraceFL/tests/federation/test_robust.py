"""Flower's robust strategies as the server asks them: the same models as the rules that answers are computed by."""

import pytest
import torch
from flwr.app import ArrayRecord, Message, MessageType, MetricRecord, RecordDict

from tracefl.federation.robust import aggregate, flowers
from tracefl.provenance import Aggregation

pytestmark = pytest.mark.usefixtures("task")

RULES = [
    Aggregation("krum", malicious=1),
    Aggregation("krum", malicious=1, selected=4),
    Aggregation("krum", malicious=2, selected=2),
    Aggregation("bulyan", malicious=1),
    Aggregation("trimmed_mean", cut=0.2),
    Aggregation("median"),
]
EXAMPLES = [10, 30, 5, 15, 10, 5, 5, 20]


def states(count, seed):
    """Clients of one start, far from zero beside what they differ by, with counters that differ by much more."""
    draw = torch.Generator().manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Linear(20, 30), torch.nn.BatchNorm1d(30)).state_dict()
    start = {n: 100 + torch.rand(w.shape, generator=draw) if w.is_floating_point() else w for n, w in model.items()}
    found = []
    for k in range(count):
        size = 1e-3 * (k + 1)
        found.append(
            {
                n: w + size * torch.randn(w.shape, generator=draw) if w.is_floating_point() else w + 10 ** (k + 1)
                for n, w in start.items()
            }
        )
    return found


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("count", [7, 8])
@pytest.mark.parametrize("seed", range(3))
def test_the_server_s_model_is_the_rule_s(rule, count, seed):
    sent = states(count, seed)
    messages = [
        Message(
            RecordDict({"arrays": ArrayRecord(state), "metrics": MetricRecord({"num-examples": n, "train-loss": 1.0})}),
            1,
            MessageType.TRAIN,
        )
        for state, n in zip(sent, EXAMPLES, strict=False)
    ]
    arrays, metrics = aggregate(flowers(rule), 1, messages)
    made = arrays.to_torch_state_dict()
    floating = {name: tensor for name, tensor in sent[0].items() if tensor.is_floating_point()}
    shares = dict(enumerate(EXAMPLES[:count]))
    again = rule.aggregate(dict(enumerate(sent)), shares, floating)
    assert list(made) == list(sent[0])
    for name, tensor in again.items():
        assert made[name].dtype == torch.float32
        torch.testing.assert_close(made[name], tensor.float(), rtol=2e-7, atol=0)
    assert made["1.num_batches_tracked"].dtype == torch.int64
    assert made["1.num_batches_tracked"].item() == 10 ** ((count + 1) // 2)  # the lower one of two in the middle
    assert metrics["train-loss"] == pytest.approx(1.0)


def test_too_few_for_the_rule_make_no_model():
    message = RecordDict({"arrays": ArrayRecord(states(1, 0)[0]), "metrics": MetricRecord({"num-examples": 1})})
    messages = [Message(message, 1, MessageType.TRAIN)] * 1
    assert aggregate(flowers(Aggregation("bulyan", malicious=1)), 1, messages) == (None, None)
