"""What the prediction would be without a client: its exact removal from the average, without training.

With FedAvg, W = sum_k p_k W_k, so the average of the other clients is W_-k = (W - p_k W_k) / (1 - p_k). A client is
responsible, tested so, in the measure in which its removal lowers the predicted class's centered logit (its logit less
the mean of all logits).
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call

from tracefl.examples import Inputs
from tracefl.provenance.capture import undisturbed
from tracefl.provenance.record import RoundRecord


def weights_without(record: RoundRecord, client_id: str) -> dict[str, Tensor]:
    """Return the average of the round's other clients, buffers included; integer buffers stay the average's.

    Raises:
        ValueError: The client is the round's only one.
    """
    p = record.client_weights[client_id]
    if not p < 1:
        raise ValueError(f"client {client_id!r} is the whole average (weight {p}): there is no model without it")
    left = record.clients[client_id]
    # W + p/(1-p) (W - W_k) is (W - p W_k) / (1 - p) with less cancellation.
    return {
        name: w + p / (1 - p) * (w - left[name].to(w)) if w.is_floating_point() else w
        for name, w in record.global_weights.items()
    }


@torch.no_grad()
def removal_effects(
    global_model: nn.Module,
    record: RoundRecord,
    inputs: Inputs,
    *,
    batch_size: int = 256,
    device: torch.device | str | None = None,
) -> Tensor:
    """Return by how much each client's removal lowers the centered logit of the predicted class.

    Args:
        global_model: The architecture; its own weights are not used and not changed.
        record: The round, of at least two clients.
        inputs: ``(B, ...)`` or a mapping of such tensors.
        batch_size: Inputs in one forward.
        device: Where to compute; None for where the model is.

    Returns:
        ``(B, K)`` in logits, float64 on the CPU, columns in the order of ``record.clients``; positive where the
        client supports the prediction. K + 1 forward passes.

    Raises:
        ValueError: The round has one client only.
    """
    with undisturbed(global_model, device) as place:
        logits = _logits(global_model, record.global_weights, inputs, batch_size, place)  # (B, C)
        predicted = logits.argmax(dim=1)
        with_all = _centered(logits, predicted)
        effects = []
        for client_id in record.clients:
            without = _logits(global_model, weights_without(record, client_id), inputs, batch_size, place)
            effects.append(with_all - _centered(without, predicted))
    return torch.stack(effects, dim=1).cpu()


def _centered(logits: Tensor, classes: Tensor) -> Tensor:
    return logits.gather(1, classes.unsqueeze(1)).squeeze(1) - logits.mean(dim=1)


def _logits(
    model: nn.Module, weights: Mapping[str, Tensor], inputs: Inputs, batch_size: int, device: torch.device
) -> Tensor:
    """Return ``(B, C)`` float64 logits of the model with other weights."""
    # Names without the doubles of tied weights, which functional_call refuses.
    names = [name for name, _ in (*model.named_parameters(), *model.named_buffers()) if name in weights]
    state = {name: weights[name].to(device) for name in names}
    tensors = inputs if isinstance(inputs, Mapping) else {"": inputs}
    parts = []
    for start in range(0, len(next(iter(tensors.values()))), batch_size):
        batch = {name: tensor[start : start + batch_size].to(device) for name, tensor in tensors.items()}
        output = (
            functional_call(model, state, (), batch) if "" not in batch else functional_call(model, state, batch[""])
        )
        parts.append(getattr(output, "logits", output).double())
    return torch.cat(parts)
