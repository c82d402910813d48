"""Small rounds whose clients are near a model, as evidence."""

from dataclasses import replace

import torch
from torch import nn

from tests.helpers.models import clients_near, states_near
from tracefl.provenance import RoundRecord
from tracefl.questions.baselines import Evidence


def small_cnn():
    """Two convolutions with BatchNorm, one ReLU in place, a linear layer: 2 x 6 x 6 inputs, 3 classes."""
    torch.manual_seed(0)
    return (
        nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(inplace=True),
            nn.Conv2d(4, 3, 3, stride=2),
            nn.ReLU(inplace=True),
            nn.Flatten(),
            nn.Linear(12, 3),
        )
        .double()
        .eval()
    )


def average(clients, p):
    first = next(iter(clients.values()))
    total = sum(p.values())
    return {
        name: sum(p[k] * weights[name] for k, weights in clients.items() if k in p) / total
        if tensor.is_floating_point()
        else tensor
        for name, tensor in first.items()
    }


def evidence_of(model, clients, inputs, p=None, num_faults=1, seed=0):
    """A round of these clients that started from the model's weights; the model is given their average."""
    p = p or dict.fromkeys(clients, 1 / len(clients))
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    record = RoundRecord(1, clients, p, start, average(clients, p))
    model.load_state_dict(record.global_weights)
    with torch.no_grad():
        predicted = model(inputs).argmax(dim=1)
    return Evidence(record, model, inputs, predicted, seed, num_faults)


def cnn_evidence(num_clients=4, scale=0.5, seed=1, num_faults=1, p=None):
    model = small_cnn()
    inputs = torch.randn(3, 2, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
    return evidence_of(model, clients_near(model, num_clients, scale, seed), inputs, p, num_faults)


def point_evidence(points, num_faults=1):
    """Clients whose updates are these points: a linear layer that starts from zero."""
    points = torch.tensor(points, dtype=torch.float64)
    model = nn.Linear(points.shape[1], 1, bias=False).double()
    nn.init.zeros_(model.weight)
    clients = {str(k): {"weight": point[None]} for k, point in enumerate(points)}
    return evidence_of(model, clients, torch.ones(2, points.shape[1], dtype=torch.float64), num_faults=num_faults)


def with_history(evidence, rounds=3, scale=0.1):
    """The evidence with earlier rounds of the same clients, each of which ends where the next one begins."""
    p, end, earlier = evidence.record.client_weights, evidence.record.previous_global, []
    for number in range(rounds, 0, -1):
        start = states_near(end, 1, scale, seed=50 + number)["0"]
        sent = states_near(end, len(p), scale, seed=100 + number)
        off = {name: tensor - end[name] for name, tensor in average(sent, dict.fromkeys(sent, 1)).items()}
        clients = {
            client: {n: t - off[n] if t.is_floating_point() else t for n, t in weights.items()}
            for client, weights in zip(p, sent.values(), strict=True)
        }
        earlier.insert(0, RoundRecord(number, clients, p, start, average(clients, p)))
        end = start
    record = replace(evidence.record, server_round=rounds + 1)
    return replace(evidence, record=record, history=tuple(lambda one=one: one for one in earlier))
