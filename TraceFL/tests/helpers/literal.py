"""Algorithm 1 read literally, client by client, layer by layer, input by input: slow, and sharing no code.

For each input: run the global model, keep each layer's input and output, differentiate the target with respect to each
output. For each client and layer: put the client's weights into a copy of that layer, apply it to the kept input, and
take the inner product with the gradient.
"""

import copy

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

KINDS = (nn.Linear, nn.Conv1d, nn.Conv2d, Conv1D, nn.LayerNorm)


def keep(name, seen):
    """Return a hook that keeps what one layer saw."""

    def hook(module, args, output):
        seen.append((name, args[0].detach().clone(), output))
        return output.clone()

    return hook


def literal_contributions(model, clients, inputs, value, layer_decay, reference=None, kinds=KINDS):
    """Return the (B, K) contributions; ``value`` maps one input's (1, C) logits to the scalar that is attributed."""
    return literal_by_layer(model, clients, inputs, value, layer_decay, reference, kinds).sum(dim=2)


def literal_by_layer(model, clients, inputs, value, layer_decay, reference=None, kinds=KINDS):
    """Return each layer's part of them, (B, K, L), the layers of these kinds in the order of ``named_modules()``."""
    model = copy.deepcopy(model).eval()
    named = [(name, layer) for name, layer in model.named_modules() if isinstance(layer, kinds)]
    num_inputs = len(next(iter(inputs.values()))) if isinstance(inputs, dict) else len(inputs)
    rows = []
    for i in range(num_inputs):
        seen = []  # (layer name, input, output) a call
        handles = [layer.register_forward_hook(keep(name, seen)) for name, layer in named]
        if isinstance(inputs, dict):
            out = model(**{key: tensor[i : i + 1] for key, tensor in inputs.items()})
        else:
            out = model(inputs[i : i + 1])
        for handle in handles:
            handle.remove()
        logits = getattr(out, "logits", out)
        called = [name for name, _ in named if any(name == other for other, _, _ in seen)]
        gradients = torch.autograd.grad(value(logits), [output for _, _, output in seen], allow_unused=True)
        row = []
        for weights in clients.values():
            parts = dict.fromkeys((name for name, _ in named), 0.0)
            for (name, layer_input, _), gradient in zip(seen, gradients, strict=True):
                if gradient is None:
                    continue
                layer = copy.deepcopy(dict(named)[name])
                with torch.no_grad():
                    for parameter_name, parameter in layer.named_parameters():
                        full = f"{name}.{parameter_name}" if name else parameter_name
                        parameter.copy_(weights[full] - (0 if reference is None else reference[full]))
                    decay = layer_decay ** (len(called) - 1 - called.index(name))
                    parts[name] += decay * float((layer(layer_input).double() * gradient.double()).sum())
            row.append(list(parts.values()))
        rows.append(row)
    return torch.tensor(rows, dtype=torch.float64)
