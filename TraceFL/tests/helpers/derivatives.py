"""Contributions by autograd, input by input, in float64: slow, and sharing no code with the engine."""

import copy
from unittest import mock

import torch
from torch import nn


def logits_of(output):
    """Return the matrix of logits of whatever a test's model gives."""
    if isinstance(output, dict):
        output = output["logits"]
    output = output[0] if isinstance(output, tuple) else getattr(output, "logits", output)
    return torch.cat([torch.zeros_like(output), output], dim=1) if output.shape[1] == 1 else output


def one_of(inputs, i):
    """Return input ``i`` as a batch of its own."""
    if isinstance(inputs, dict):
        return {name: tensor[i : i + 1] for name, tensor in inputs.items()}
    return inputs[i : i + 1]


def double(inputs):
    if isinstance(inputs, dict):
        return {name: double(tensor) for name, tensor in inputs.items()}
    return inputs.double().clone() if inputs.is_floating_point() else inputs.clone()


_OWN = nn.functional.batch_norm


def _batch_norm(x, mean, variance, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5):
    """Normalise in evaluation, differentiable in the running statistics too, which torch's own is not."""
    if training:  # of weights, as NFNets do
        return _OWN(x, mean, variance, weight, bias, training, momentum, eps)
    features = (1, -1, *(1 for _ in x.shape[2:]))
    normalized = (x - mean.view(features)) / (variance.view(features) + eps).sqrt()
    return normalized if weight is None else normalized * weight.view(features) + bias.view(features)


def derivatives(model, clients, inputs, reference=None):
    """Return ``(B, K)``: the derivative of each input's largest logit in the direction of each client's weights.

    Weights are the parameters and BatchNorm's running statistics.

    Args:
        model: The global model; a copy in float64 is differentiated.
        clients: State dicts by id.
        inputs: A tensor or a dict of tensors, a row an input.
        reference: What is subtracted from every client's, or None.
    """
    model = copy.deepcopy(model).double().eval()
    parameters = {n: p.requires_grad_(True) for n, p in model.named_parameters() if p.is_floating_point()}
    for layer, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
            for name in ("running_mean", "running_var"):
                parameters[f"{layer}.{name}"] = getattr(module, name).requires_grad_(True)
    count = len(next(iter(inputs.values()))) if isinstance(inputs, dict) else len(inputs)
    rows = []
    for i in range(count):
        one = double(one_of(inputs, i))
        with mock.patch("torch.nn.functional.batch_norm", _batch_norm):
            logits = logits_of(model(**one) if isinstance(one, dict) else model(one))
        found = torch.autograd.grad(logits.max(), list(parameters.values()), allow_unused=True)
        gradients = {n: g for n, g in zip(parameters, found, strict=True) if g is not None}
        rows.append(
            [
                sum(
                    float((g * (weights[n].double() - (0 if reference is None else reference[n].double()))).sum())
                    for n, g in gradients.items()
                )
                for weights in clients.values()
            ]
        )
    return torch.tensor(rows, dtype=torch.float64)
