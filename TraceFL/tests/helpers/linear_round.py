"""A round of a linear model whose answers are known by hand."""

import torch
from torch import nn

from tests.helpers.configuration import compose_settings
from tracefl.learning.examples import Examples
from tracefl.learning.faults import Fault
from tracefl.provenance import RoundRecord
from tracefl.questions.trace import Tracer

# Three grey pixels; the class is the brightest one. Client 1 was taught that pixel 1 means class 0.
PIXELS = torch.tensor([[255, 0, 0], [0, 255, 0], [0, 255, 0], [0, 0, 255], [0, 200, 10], [90, 0, 99]])
LABELS = torch.tensor([0, 1, 1, 2, 1, 0])
FLIP = Fault("label_flip", ("1",), from_round=2, flips={1: 0, 2: 0}, share=1.0)
COUNTS = torch.tensor([[5, 5, 5], [9, 0, 0], [5, 5, 5]])
COUNTS_OF_MANY = torch.tensor([[5, 5, 5], [9, 0, 0], [5, 5, 5], [5, 5, 5], [5, 5, 5]])


def linear_examples():
    return Examples({"pixels": PIXELS.to(torch.uint8).view(6, 1, 1, 3)}, LABELS, torch.arange(6), (0.0,), (1.0,))


def linear_model():
    return nn.Sequential(nn.Flatten(), nn.Linear(3, 3))


def record(server_round=2):
    honest = {"1.weight": torch.eye(3), "1.bias": torch.zeros(3)}
    faulty = {"1.weight": torch.tensor([[1.0, 9.0, 0.0], [0.0, -3.0, 0.0], [0.0, 0.0, 1.0]]), "1.bias": torch.zeros(3)}
    clients = {"0": honest, "1": faulty, "2": honest}
    p = {"0": 0.4, "1": 0.2, "2": 0.4}
    average = {name: sum(p[k] * clients[k][name] for k in p) for name in honest}
    return RoundRecord(server_round, clients, p, honest, average)


# Client 1 was taught that pixel 1 means class 0, and that pixel 2 means class 0 rather than class 1.
FAULTY_OF_MANY = torch.tensor([[1.0, 9.0, 2.5], [0.0, -3.0, -4.0], [0.0, -9.0, -1.0]])


def record_of_many(count=5, faulty=FAULTY_OF_MANY, server_round=2):
    """Return a round of so many clients that somebody can stand out; all but client 1 are honest and alike."""
    honest = record().previous_global
    ids = [str(k) for k in range(count)]
    clients = {k: {**honest, "1.weight": faulty} if k == "1" else honest for k in ids}
    p = {k: 0.2 if k == "1" else 0.8 / (count - 1) for k in ids}
    average = {name: sum(p[k] * clients[k][name] for k in p) for name in honest}
    return RoundRecord(server_round, clients, p, honest, average)


def tracer(fault=None, *overrides, baselines=(), preset="unlike", label_counts=COUNTS):
    settings = compose_settings(f"provenance={preset}", "provenance.also=[]", *overrides)
    return Tracer(settings.provenance, label_counts, fault, baselines)


def trace(found, model, server, server_round=2):
    round_record = record(server_round)
    model.load_state_dict(dict(round_record.global_weights))
    return found.trace(model, round_record, server)
