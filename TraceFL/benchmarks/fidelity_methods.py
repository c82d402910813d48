"""The attributions that fidelity.py compares: those of the tool, what might improve them, and plain rules."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from tracefl.provenance import Method, RoundRecord, attribute, attribute_round
from tracefl.provenance.inputs import Inputs, read_batch
from tracefl.provenance.removal import centered_logit, logits_under
from tracefl.provenance.shares import weighted
from tracefl.questions.baselines import RULES, Evidence
from tracefl.questions.baselines.engine import ARTIFACT

CPU = torch.device("cpu")
_DIFFERENCE = 0.05  # of a removal's length, to either side


@dataclass(frozen=True)
class Question:
    """A round of K clients and B inputs: what every method is asked about."""

    model: nn.Module
    record: RoundRecord
    inputs: Inputs
    labels: Tensor
    predicted: Tensor
    seed: int

    @property
    def steps(self) -> dict[str, float]:
        """How far the average moves, in units of W - W_k, when client k is left out: p_k / (1 - p_k)."""
        steps = weighted(self.record.client_weights, "leave_one_out")
        assert steps is not None
        return steps


Answer = Callable[[Question], Tensor]
"""Contributions ``(B, K)``, or ``(K,)`` for all inputs alike."""


def _by(method: Method) -> Answer:
    def answer(question: Question) -> Tensor:
        return attribute_round(question.model, question.record, question.inputs, question.labels, method).contributions

    return answer


def _rule(name: str) -> Answer:
    def answer(q: Question) -> Tensor:
        return RULES[name](Evidence(q.record, q.model, q.inputs, q.predicted, q.seed))

    return answer


def at_random(question: Question) -> Tensor:
    """Return ``(B, K)`` equal numbers: clients that tie share the first place, so this scores what any draw expects."""
    return torch.zeros(len(question.labels), len(question.steps))


def first_is(answer: Tensor, right: Tensor) -> float:
    """Return how often the first client of ``(B, K)`` answers is a right one, ``(B, K)`` bool; equal ones share it."""
    first = (answer == answer.max(dim=1, keepdim=True).values).double()
    return float(((first * right).sum(dim=1) / first.sum(dim=1)).mean())


def last_layer(question: Question) -> Tensor:
    """The removal's first order through the last traced layer alone."""
    last = [name for name, layer in question.model.named_modules() if isinstance(layer, nn.Linear)][-1]
    return _by(Method(layers=(last,)))(question)


def scale_and_shift(question: Question) -> Tensor:
    """First order in the scale and the shift that a BatchNorm applies, which its four tensors make together.

    y = x s + t with s = weight / sqrt(v + eps) and t = bias - m s: what the removal makes of both is taken exactly.
    """

    def changed(norm: _BatchNorm, old: Mapping[str, Tensor], new: Mapping[str, Tensor]) -> dict[str, Tensor]:
        root = (old["running_var"] + norm.eps).rsqrt()
        scale = new["weight"] * (new["running_var"] + norm.eps).rsqrt()
        return {
            "weight": scale / root - old["weight"],
            "bias": new["bias"] - old["bias"] + (old["running_mean"] - new["running_mean"]) * scale,
            "running_mean": torch.zeros_like(root),
            "running_var": torch.zeros_like(root),
        }

    return _in_other_coordinates(question, changed)


def log_variance(question: Question) -> Tensor:
    """First order in the logarithm of the running variances: a removal divides or multiplies them."""

    def changed(norm: _BatchNorm, old: Mapping[str, Tensor], new: Mapping[str, Tensor]) -> dict[str, Tensor]:
        var = old["running_var"] + norm.eps
        return {name: new[name] - old[name] for name in old} | {
            "running_var": var * ((new["running_var"] + norm.eps) / var).log()
        }

    return _in_other_coordinates(question, changed)


def _in_other_coordinates(
    question: Question, changed: Callable[[_BatchNorm, Mapping[str, Tensor], Mapping[str, Tensor]], dict[str, Tensor]]
) -> Tensor:
    """Attribute to clients whose BatchNorms are such that the first order sees the ``changed`` differences."""
    record = question.record
    norms = {name: module for name, module in question.model.named_modules() if isinstance(module, _BatchNorm)}
    if not norms:
        raise ValueError("the model has no BatchNorm")
    clients = {}
    for client_id, weights in record.clients.items():
        step = question.steps[client_id]
        seen = dict(weights)
        for name, norm in norms.items():
            keys = {tensor: f"{name}.{tensor}" for tensor in ("weight", "bias", "running_mean", "running_var")}
            old = {tensor: record.average[key].double() for tensor, key in keys.items()}
            new = {tensor: old[tensor] - step * (weights[key].double() - old[tensor]) for tensor, key in keys.items()}
            new["running_var"].clamp_(min=0)
            for tensor, difference in changed(norm, old, new).items():
                seen[keys[tensor]] = (old[tensor] - difference / step).to(weights[keys[tensor]].dtype)
        clients[client_id] = seen
    return attribute(
        question.model,
        clients,
        question.inputs,
        p=record.client_weights,
        reference=record.average,
    ).contributions


def random_curvature(question: Question) -> Tensor:
    """Second order by one Hessian-vector product, with the sum of all clients' removals, each with a random sign.

    With v = sum_j s_j d_j the product of d_k s_k with H v has the mean d_k H d_k (Hutchinson 1990); all other clients'
    terms are its noise. H v is the difference of the gradients at W + v and W - v.
    """
    draw = torch.Generator().manual_seed(question.seed)
    signs = dict(
        zip(question.record.clients, torch.randint(0, 2, (len(question.steps),), generator=draw) * 2 - 1, strict=True)
    )
    ends = []
    for side in (1.0, -1.0):
        moved = {k: side * float(signs[k]) * question.steps[k] for k in question.steps}
        model = copy.deepcopy(question.model)
        model.load_state_dict(_moved(question.record, moved))
        model.register_forward_hook(_center_logits)
        found = attribute(
            model,
            question.record.clients,
            question.inputs,
            p=question.record.client_weights,
            target=question.predicted,
            reference=question.record.average,
        )
        ends.append(found.contributions.double())
    curvature = (ends[0] - ends[1]) / 2 * torch.tensor([float(signs[k]) for k in question.steps])
    return _by(Method(verify=0))(question) - curvature / 2


def along_the_path(*places: float) -> Answer:
    """First order at points between the average (0) and the average of the others (1), the mean of these.

    By central differences along each client's removal, 2 K forward passes a point: what gradients at other points could
    give at best, and no cheaper than the exact removal.
    """

    def answer(question: Question) -> Tensor:
        columns = []
        for client_id, step in question.steps.items():
            slopes = [_slope(question, client_id, step, place) for place in places]
            columns.append(torch.stack(slopes).mean(dim=0))
        return torch.stack(columns, dim=1)

    return answer


def _slope(question: Question, client_id: str, step: float, place: float) -> Tensor:
    """Return ``(B,)`` minus the derivative of the centered logit along the removal, at ``place`` of its length."""
    question.model.eval()
    ends = []
    with torch.no_grad():
        batch = read_batch(question.model, question.inputs, CPU)
        for side in (_DIFFERENCE, -_DIFFERENCE):
            weights = _moved(question.record, {client_id: -(place + side) * step})
            logits = logits_under(question.model, weights, batch, 100, CPU)
            ends.append(centered_logit(logits, question.predicted))
    return (ends[1] - ends[0]) / (2 * _DIFFERENCE)


def _moved(record: RoundRecord, moved: Mapping[str, float]) -> dict[str, Tensor]:
    """Return the average, moved by so much of each client's difference to it."""
    weights = dict(record.average)
    clients = {k: record.clients[k] for k in moved}  # once: stored ones are read anew each time
    for name, old in record.average.items():
        if old.is_floating_point():
            away = sum(by * (clients[k][name].double() - old.double()) for k, by in moved.items())
            weights[name] = (old.double() + away).to(old.dtype)
            if name.endswith("running_var"):
                weights[name].clamp_(min=0)
    return weights


def _center_logits(_: nn.Module, __: object, output: object) -> Tensor:
    logits = getattr(output, "logits", output)
    assert isinstance(logits, Tensor)
    return logits - logits.mean(dim=1, keepdim=True)


METHODS: dict[str, Answer] = {
    "leave_one_out": _by(Method(verify="all")),
    "removal, verify=5": _by(Method(verify=5)),
    "removal (default)": _by(Method()),
    "removal, verify=3": _by(Method(verify=3)),
    "removal, verify=1": _by(Method(verify=1)),
    "removal, verify=0": _by(Method(verify=0)),
    "without embeddings and BatchNorm": _by(Method(also=(), verify=0)),
    "log running variances": log_variance,
    "BatchNorm's scale and shift": scale_and_shift,
    "second order, one product": random_curvature,
    "gradient at the others' average": along_the_path(1.0),
    "gradients at both": along_the_path(0.0, 1.0),
    "gradient half way": along_the_path(0.5),
    "last layer only": last_layer,
    "unlike": _by(Method.unlike()),
    "artifact": _by(ARTIFACT),
    "paper": _by(Method(0.9, "num_examples", "none", "predicted", also=())),
    "own logit": _rule("own_logit"),
    "largest bias": _rule("last_bias"),
    "largest client": _rule("most_examples"),
    "random": at_random,
}
"""By their names in the table, in its order."""

OF_BATCH_NORM = ("log running variances", "BatchNorm's scale and shift")
BY_PATH = ("gradient at the others' average", "gradients at both", "gradient half way")
