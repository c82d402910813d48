"""A made round whose prediction nobody carries: without any one client, it is surer."""

import torch
from torch import nn

from tracefl.provenance import RoundRecord

IDS = ("1", "2", "3", "4")
SIZES = (3.0, 3.1, 3.6, 2.9)


def make_nobodys_round() -> tuple[nn.Module, RoundRecord, torch.Tensor]:
    """Return the model, the round and one input of class 0.

    Client i answers through a hidden unit of its own: w_i = v_i = s_i there, and 0 elsewhere. Of the average of four,
    the logit is the sum of (s_i / 4)^2; of any three, that of (s_j / 3)^2, which is more. Client 3, with the largest s,
    has the largest inner product with the gradient, and so the largest softmax score.
    """
    model = nn.Sequential(nn.Linear(1, 4, bias=False), nn.ReLU(), nn.Linear(4, 2, bias=False))
    clients = {}
    for i, (client, size) in enumerate(zip(IDS, SIZES, strict=True)):
        hidden, head = torch.zeros(4, 1), torch.zeros(2, 4)
        hidden[i, 0] = head[0, i] = size
        clients[client] = {"0.weight": hidden, "2.weight": head}
    average = {name: sum(each[name] for each in clients.values()) / 4 for name in clients["1"]}
    model.load_state_dict(average)
    record = RoundRecord(1, clients, dict.fromkeys(IDS, 0.25), average, average)
    return model, record, torch.ones(1, 1)


def slow_effects() -> dict[str, float]:
    """Return each client's exact effect by the formula above: half the logit's fall, for the other class's stays 0."""
    whole = sum((size / 4) ** 2 for size in SIZES)
    return {
        client: (whole - sum((other / 3) ** 2 for other in SIZES[:i] + SIZES[i + 1 :])) / 2
        for i, client in enumerate(IDS)
    }
