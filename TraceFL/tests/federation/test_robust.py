"""Robust rules as the server asks them: the models that Flower's strategies make, and rounds that answers are about."""

import pytest
import torch

from tests.helpers.flowers_rules import made_by_flower, messages_of
from tests.helpers.rounds_by_hand import Server, replied
from tracefl.federation.robust import aggregate
from tracefl.provenance import Aggregation
from tracefl.provenance.comparison import compare_whole
from tracefl.provenance.reading import read_round

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
def test_the_server_s_model_is_flower_s(rule, count, seed):
    sent = states(count, seed)
    made = aggregate(rule, messages_of(sent, EXAMPLES)).to_torch_state_dict()
    assert list(made) == list(sent[0])
    for name, tensor in made_by_flower(rule, sent, EXAMPLES).items():
        assert made[name].dtype == torch.float32
        torch.testing.assert_close(made[name], tensor.float(), rtol=2e-7, atol=0)
    assert made["1.num_batches_tracked"].dtype == torch.int64
    assert made["1.num_batches_tracked"].item() == 10 ** ((count + 1) // 2)  # the lower one of two in the middle


def test_truth_values_are_the_most_clients():
    state = {"w": torch.zeros(2), "mask": torch.tensor([True, False])}
    other = {"w": torch.ones(2), "mask": torch.tensor([True, True])}
    made = aggregate(Aggregation("median"), messages_of([state, state, other], EXAMPLES)).to_torch_state_dict()
    assert made["mask"].tolist() == [True, False]


def test_too_few_for_the_rule_make_no_model():
    assert aggregate(Aggregation("bulyan", malicious=1), messages_of(states(6, 0), EXAMPLES)) is None


NODES = {str(k): k for k in range(8)}


def server(rule, clients, **plan):
    draw = torch.Generator().manual_seed(0)
    start = {"w": torch.randn(3000, generator=draw) * 0.05}
    nodes = {k: NODES[k] for k in list(NODES)[:clients]}
    given = {"clients_per_round": clients, "client_ids": tuple(nodes), "aggregation": rule, "min_clients": rule.fewest}
    return Server(rule.rule, nodes=nodes, initial_weights=start, **given, **plan), start["w"]


@pytest.mark.parametrize("seed", range(40))
def test_a_round_of_which_two_are_each_other_s_nearest_is_what_is_answered_about(seed):
    # Their scores are the same but for rounding, by which Flower and another order of sums choose differently.
    attacked, start = server(Aggregation("krum", malicious=1), 4)
    draw = torch.Generator().manual_seed(seed)
    attacked.round({k: replied({"w": start + 1e-3 * torch.randn(3000, generator=draw)}) for k in list(NODES)[:4]})
    record = attacked.told.outcomes[0].record
    assert compare_whole(read_round(None, record)).refusal is None


def test_two_who_spoil_a_round_of_bulyan_are_refused_and_the_others_aggregated():
    rule = Aggregation("bulyan")
    attacked, start = server(rule, 6, is_sound=lambda weights: bool(weights["w"].abs().max() < 1e6))
    spoiled = {k: replied({"w": start + 1e10}) for k in ("4", "5")}
    attacked.round({k: replied({"w": start + 0.001 * int(k)}) for k in ("0", "1", "2", "3")} | spoiled)
    assert set(attacked.told.outcomes[0].refused) == {"4", "5"}


def test_one_reply_that_is_no_number_costs_a_round_of_the_fewest_clients_that_one_alone():
    rule = Aggregation("bulyan", malicious=1)
    attacked, start = server(rule, 8)
    replies = {k: replied({"w": start + 0.001 * int(k)}) for k in NODES}
    attacked.round(replies | {"3": replied({"w": start * torch.nan})})
    (outcome,) = attacked.told.outcomes
    assert (outcome.refused, len(outcome.record.clients)) == (("3",), 7)
