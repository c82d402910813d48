"""The last linear layer, of which each output is a class: what several rules look at."""

import torch
from torch import Tensor, nn

from tracefl.provenance import RoundRecord
from tracefl.questions.baselines.evidence import Evidence, NotApplicableError


def last_linear(evidence: Evidence, rule: str) -> tuple[str, nn.Linear]:
    """Return the model's last linear layer and its name.

    Args:
        evidence: The model, and the classes that it predicts.
        rule: The name of the rule that asks.

    Raises:
        NotApplicableError: There is no linear layer, or the last one has fewer outputs than there are classes.
    """
    linear = [(name, module) for name, module in evidence.model.named_modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise NotApplicableError(f"{rule} reads the last linear layer; this model has no linear layer")
    name, layer = linear[-1]
    if layer.out_features <= int(evidence.predicted.max()):
        raise NotApplicableError(f"{rule}: the last linear layer, {name!r}, gives fewer numbers than classes")
    return name, layer


def last_layer_updates(evidence: Evidence, rule: str, record: RoundRecord | None = None) -> Tensor:
    """Return the clients' updates of the last linear layer, ``(K, C, D + 1)`` float64 on the CPU.

    The D weights of each class come first and its bias last; without a bias it is ``(K, C, D)``.

    Args:
        evidence: Its model says which layer it is.
        rule: The name of the rule that asks.
        record: The round; None for the evidence's own.

    Raises:
        NotApplicableError: As in ``last_linear``.
    """
    record = evidence.record if record is None else record
    name, layer = last_linear(evidence, rule)
    names = [f"{name}.{part}" if name else part for part in ("weight", "bias") if getattr(layer, part) is not None]
    rows = []
    for weights in (record.previous_global, *record.clients.values()):
        parts = [weights[part].detach().cpu().double() for part in names]
        rows.append(torch.cat([part.view(layer.out_features, -1) for part in parts], dim=1))  # (C, D + 1)
    return torch.stack(rows[1:]) - rows[0]
