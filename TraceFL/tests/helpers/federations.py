"""A small federation trained in memory, one of whose clients flips labels: its last round, and those before."""

import copy

import torch
from torch import nn

from tests.helpers.evidence import average
from tracefl.provenance import RoundRecord
from tracefl.questions.baselines import Evidence

CLASSES, WIDTH = 4, 12


def blobs(count, generator, classes=None):
    """``count`` points around a centre for each class, and their labels."""
    centres = torch.randn(CLASSES, WIDTH, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    labels = torch.randint(CLASSES, (count,), generator=generator) if classes is None else classes
    return centres[labels] + 0.5 * torch.randn(count, WIDTH, generator=generator, dtype=torch.float64), labels


def trained(model, points, labels, steps=5, lr=0.2):
    own = copy.deepcopy(model)
    optimizer = torch.optim.SGD(own.parameters(), lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(own(points), labels).backward()
        optimizer.step()
    return {name: tensor.detach().clone() for name, tensor in own.state_dict().items()}


def flipping_federation(num_clients=10, num_rounds=4, faulty="7", from_round=1, flip=None, target=0):
    """Evidence of the last round, with the rounds before it as history.

    The faulty client's labels all become ``target``; or, with ``flip``, that class's alone. Its inputs are those of
    other classes that the last model takes for the target.
    """
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    model = nn.Sequential(nn.Linear(WIDTH, 8), nn.Tanh(), nn.Linear(8, CLASSES)).double()
    data = {str(k): blobs(80, generator) for k in range(num_clients)}
    p = dict.fromkeys(data, 1 / num_clients)
    records = []
    for number in range(1, num_rounds + 1):
        start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        clients = {}
        for client, (points, labels) in data.items():
            if client == faulty and number >= from_round:
                labels = torch.where(torch.tensor(flip is None) | (labels == flip), target, labels)
            clients[client] = trained(model, points, labels)
        records.append(RoundRecord(number, clients, p, start, average(clients, p)))
        model.load_state_dict(records[-1].global_weights)
    inputs, labels = blobs(400, generator)
    with torch.no_grad():
        predicted = model(inputs).argmax(dim=1)
    wrong = torch.nonzero((predicted != labels) & (predicted == target)).flatten()[:6]
    if not len(wrong):  # a model that is right still has inputs that are nearest to the target
        wrong = torch.nonzero(labels != target).flatten()[:6]
    history = tuple(lambda record=record: record for record in records[:-1])
    chosen = torch.full((len(wrong),), target)
    return Evidence(records[-1], model, inputs[wrong], chosen, seed=0, history=history)
