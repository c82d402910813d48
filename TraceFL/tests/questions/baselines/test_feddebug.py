"""FedDebug against its definition, read literally: all subsets of K - 1 clients, and sets of neurons."""

import copy
import itertools
from dataclasses import replace

import pytest
import torch
from torch import nn

from tests.helpers.evidence import cnn_evidence, evidence_of, small_cnn
from tests.helpers.models import model_and_inputs
from tracefl.common.seeds import derive_seed
from tracefl.provenance import RoundRecord
from tracefl.questions.baselines import Evidence, NotApplicableError, feddebug
from tracefl.questions.baselines.feddebug import random_inputs

THRESHOLD = 0.003


def activated(evidence, client_id, one):
    """Return the set of (layer, position) that a client's own model activates for one input."""
    model = copy.deepcopy(evidence.model).eval()
    model.load_state_dict(evidence.record.clients[client_id])
    found = set()
    value = one[None]
    for number, layer in enumerate(model):
        value = layer(value).detach().clone()
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            after = [max(v, 0.0) for v in value.flatten().tolist()]
            low, high = min(after), max(after)
            if high > low:
                found |= {(number, i) for i, v in enumerate(after) if (v - low) / (high - low) > THRESHOLD}
    return found


def literal_rounds(evidence, num_inputs):
    """Yield, for each random input, the clients found by each search."""
    seed = derive_seed(evidence.seed, "feddebug", evidence.record.server_round)
    for one in random_inputs(evidence.inputs.shape[1:], num_inputs, seed).double():
        neurons = {k: activated(evidence, k, one) for k in evidence.record.clients}
        left, searches, wanted = set(neurons), [], evidence.num_faults
        while wanted > 0:
            common = {
                subset: len(set.intersection(*(neurons[k] for k in subset)))
                for subset in itertools.combinations(sorted(left), len(left) - 1)
            }
            best = [subset for subset, count in common.items() if count == max(common.values())]
            found = [(left - set(subset)).pop() for subset in best]
            searches.append({k: min(1, wanted / len(found)) for k in found})
            left -= set(found)
            wanted -= len(found)
        yield searches


def literal_votes(evidence, num_inputs):
    votes = dict.fromkeys(evidence.record.clients, 0.0)
    for searches in literal_rounds(evidence, num_inputs):
        for number, found in enumerate(searches):
            for k, share in found.items():
                votes[k] += share * (1 - number / (2 * evidence.num_faults * num_inputs))
    return torch.tensor(list(votes.values()), dtype=torch.float64)


@pytest.mark.parametrize("num_faults", [1, 2, 3])
@pytest.mark.parametrize("scale", [0.05, 0.5, 2.0])
@pytest.mark.parametrize("seed", [1, 2])
def test_agrees_with_all_leave_one_out_subsets(num_faults, scale, seed):
    evidence = cnn_evidence(5, scale, seed, num_faults)
    votes = feddebug(evidence)
    torch.testing.assert_close(votes, literal_votes(evidence, 10))
    assert votes.max() > votes.min()


def test_votes_by_hand():
    """1x1 convolutions of four channels to a positive pixel: a channel is active where its bias is 1."""
    model = nn.Sequential(nn.Conv2d(1, 5, 1), nn.Flatten())
    nn.init.zeros_(model[0].weight)
    biases = {  # "a" alone lacks channels 0 and 1, "b" alone lacks channel 2, "c" lacks nothing
        "a": [0.0, 0.0, 1.0, 1.0, 0.0],
        "b": [1.0, 1.0, 0.0, 1.0, 0.0],
        "c": [1.0, 1.0, 1.0, 1.0, 0.0],
    }
    clients = {k: {"0.weight": model[0].weight.data, "0.bias": torch.tensor(bias)} for k, bias in biases.items()}
    evidence = evidence_of(model, clients, torch.ones(1, 1, 1, 1))
    assert feddebug(evidence).tolist() == [10, 0, 0]
    # With two faults "b" is found among the rest, with a vote less 1/40 an input.
    assert feddebug(replace(evidence, num_faults=2)).tolist() == [10, pytest.approx(9.75), 0]


def test_equal_clients_share_the_votes():
    model = small_cnn()
    same = {str(k): {n: t.clone() for n, t in model.state_dict().items()} for k in range(4)}
    evidence = evidence_of(model, same, torch.zeros(1, 2, 6, 6, dtype=torch.float64))
    assert feddebug(evidence).tolist() == [2.5] * 4
    assert feddebug(replace(evidence, num_faults=3)).tolist() == [7.5] * 4


def test_the_order_of_the_clients_does_not_matter():
    evidence = cnn_evidence(5)
    record = evidence.record
    turned = replace(record, clients=dict(reversed(record.clients.items())))
    assert feddebug(replace(evidence, record=turned)).tolist() == feddebug(evidence).flip(0).tolist()


def test_inputs_are_kaiming_uniform_by_the_seed():
    inputs = random_inputs((3, 32, 32), 50, seed=1)
    bound = (6 / (32 * 32)) ** 0.5
    assert inputs.shape == (50, 3, 32, 32)
    assert 0.99 * bound < inputs.abs().max() <= bound
    assert inputs.std() == pytest.approx(bound / 3**0.5, rel=0.01)
    assert torch.equal(inputs, random_inputs((3, 32, 32), 50, seed=1))
    assert not torch.equal(inputs, random_inputs((3, 32, 32), 50, seed=2))


def test_a_client_that_gives_no_numbers_is_the_suspect():
    evidence = cnn_evidence(4, scale=0.01)
    broken = {n: t * torch.nan if t.is_floating_point() else t for n, t in evidence.record.clients["2"].items()}
    record = replace(evidence.record, clients={**evidence.record.clients, "2": broken})
    assert feddebug(replace(evidence, record=record)).tolist() == [0, 0, 10, 0]


def test_the_model_is_left_as_it_was():
    evidence = cnn_evidence()
    evidence.model.train()
    before = copy.deepcopy(evidence.model.state_dict())
    feddebug(evidence)
    assert all(torch.equal(before[n], t) for n, t in evidence.model.state_dict().items())
    assert evidence.model.training
    assert all(p.requires_grad for p in evidence.model.parameters())
    broken = replace(evidence, inputs=torch.ones(1, 5, 6, 6, dtype=torch.float64))
    with pytest.raises(RuntimeError, match="channels"):
        feddebug(broken)
    assert not any(module._forward_hooks for module in evidence.model.modules())


def test_does_not_apply_to_text_nor_without_others():
    model, inputs = model_and_inputs("gpt")
    state = model.state_dict()
    record = RoundRecord(1, {"0": state, "1": state}, {"0": 0.5, "1": 0.5}, state, state)
    with pytest.raises(NotApplicableError, match="this model has no convolution"):
        feddebug(Evidence(record, model, inputs, torch.zeros(3, dtype=torch.int64), 0))
    with pytest.raises(NotApplicableError, match="4 faulty of 4 clients leave none"):
        feddebug(cnn_evidence(4, num_faults=4))


def test_agrees_on_a_resnet():
    """Buffers, layers called by name, tied counts: three clients, the votes by bool tensors of all neurons."""
    from tests.helpers.models import clients_near

    model, inputs = model_and_inputs("resnet18", torch.float64)
    evidence = evidence_of(model, clients_near(model, 3, 0.3), inputs)
    seed = derive_seed(0, "feddebug", 1)
    rows = []
    for weights in evidence.record.clients.values():
        own = copy.deepcopy(model).eval()
        own.load_state_dict(weights)
        seen = []
        for layer in own.modules():
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                layer.register_forward_hook(lambda m, a, out, seen=seen: seen.append(out.detach().relu().flatten(1)))
        own(random_inputs(inputs.shape[1:], 10, seed).double())
        spans = [(a - a.amin(1, keepdim=True)) / (a.amax(1, keepdim=True) - a.amin(1, keepdim=True)) for a in seen]
        rows.append(torch.cat(spans, dim=1) > THRESHOLD)  # (10, neurons)
    common = torch.stack([rows[1] & rows[2], rows[0] & rows[2], rows[0] & rows[1]]).sum(dim=2)  # (K, 10)
    expected = torch.bincount(common.argmax(dim=0), minlength=3)
    assert feddebug(evidence).tolist() == expected.tolist()
