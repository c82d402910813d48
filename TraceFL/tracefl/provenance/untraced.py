"""What an attribution left out, in one warning."""

import warnings

import torch

from tracefl.errors import ModelMismatchError
from tracefl.provenance.layers import kind_option
from tracefl.provenance.passes import Found, Question
from tracefl.provenance.sources import Clients

_SHOWN = 20  # layers of a kind


def warn_untraced(ask: Question, found: Found) -> None:
    """Name the layers of which nothing was traced, and the share of the change that runs through their parameters."""
    if not found.traced.left_out:
        return
    kinds: dict[str, list[str]] = {}
    for name, module in found.traced.left_out.items():
        kinds.setdefault(type(module).__name__, []).append(name or "the model itself")
    parts = []
    for kind, names in kinds.items():
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        parts.append(f"{len(names)} {kind} ({', '.join(names[:_SHOWN])}{more})")
    options = sorted({option for module in found.traced.left_out.values() if (option := kind_option(module))})
    share = _share(ask, found)
    measured = "" if share is None else f"; {share:.0%} of the change runs through their parameters"
    warnings.warn(f"not traced: {'; '.join(parts)}{measured}; also={options} would trace them", stacklevel=5)


def _share(ask: Question, found: Found) -> float | None:
    """Return the share of one checked input's change that runs through them, of the first client's; None if unknown."""
    if not found.untraced or found.traced_change is None:
        return None
    model = dict(ask.model.named_parameters())
    center = {
        name: model[name].detach().to(torch.promote_types(gradient.dtype, torch.float32))
        for name, gradient in found.untraced.items()
    }
    clients = Clients(ask.clients, center, ask.reference, ask.base, {}, ask.place, ask.steps)
    try:
        clients.check({name: tuple(tensor.shape) for name, tensor in center.items()})
    except ModelMismatchError:  # a client may lack what is not traced
        return None
    change = 0.0
    for name, gradient in found.untraced.items():
        difference = clients.difference(found.traced_change[0], name)
        change += float(torch.dot(gradient.flatten().to(difference), difference))
    whole = abs(change) + abs(found.traced_change[1])
    return abs(change) / whole if whole else None
