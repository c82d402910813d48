"""Weights as callers give them: state dicts under other names, NumPy arrays, lists of them, safetensors files.

They are read under the names that the model gives its tensors, and tensor by tensor, when they are needed.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tracefl.errors import ModelMismatchError
from tracefl.provenance.sources import NamedWeights, SafetensorsFile, as_tensor, shape_of

_SHOWN = 3  # names in a message


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """Return the model's parameters and persistent buffers by name, tied ones under each of their names."""
    return {name: tensor for name, tensor in model.state_dict().items() if isinstance(tensor, Tensor)}


def check_by_id(clients: Any) -> None:
    """Refuse clients that no ids name.

    Raises:
        TypeError: They are no mapping.
    """
    if not isinstance(clients, Mapping):
        raise TypeError(
            f"clients must be a mapping of ids to weights, got {type(clients).__name__}: give dict(enumerate(clients))"
        )


def named(owner: str, given: Any, like: Mapping[str, Tensor], *, whole: bool = True, exact: bool = False) -> Any:
    """Return weights under the names of ``like``, from which theirs may differ by a common prefix.

    Such prefixes are ``module.`` of ``DataParallel``, ``_orig_mod.`` of ``torch.compile``, and ``model.`` of a model
    that wraps another.

    Args:
        owner: Whose weights they are, for messages: ``"client 3"``.
        given: A mapping of tensors or arrays, a safetensors file's path, or a sequence of arrays in the order of
            ``like``.
        like: The model's tensors by name.
        whole: Refuse weights that lack a tensor of floating-point numbers; a tied one may stand under one name only,
            and integers, such as BatchNorm's ``num_batches_tracked``, are never averaged. Otherwise weights that do not
            match are returned as they are.
        exact: Refuse other tensors of floating-point numbers beside those of ``like``.

    Returns:
        ``given`` itself where it is a mapping of tensors with the same names; otherwise a ``NamedWeights``.

    Raises:
        ModelMismatchError: The weights do not match; the message has the first names that differ.
        RecordError: A file cannot be read.
    """
    if isinstance(given, str | Path):
        held: SafetensorsFile | Mapping[str, Any] = SafetensorsFile(given)
    elif isinstance(given, Mapping):
        held = given
    elif isinstance(given, Sequence) and not isinstance(given, bytes):
        held = _in_order(owner, given, like)
    else:
        raise ModelMismatchError(
            f"{owner} is a {type(given).__name__}; weights are a state dict, the path of a safetensors file or a list "
            "of arrays in the order of model.state_dict()"
        )
    own = list(held.names if isinstance(held, SafetensorsFile) else held)
    known = set(own)
    aliases = _aliases(like)
    needed = [name for name, tensor in like.items() if tensor.is_floating_point()]
    for ours, theirs in _prefixes(own, list(like)):
        names = {}
        for name in like:
            if name.startswith(ours) and (there := theirs + name.removeprefix(ours)) in known:
                names[name] = there
        for name, others in aliases.items():
            if name not in names and (tied := next((names[other] for other in others if other in names), None)):
                names[name] = tied
        if all(name in names for name in needed):
            found = _checked(owner, held, names, like, whole, exact)
            if whole:
                _check_tied(owner, held, names, aliases)
            return found
    if deeper := _within(owner, held):
        raise ModelMismatchError(deeper)
    if not whole:
        return NamedWeights(held, {name: name for name in own}) if isinstance(held, SafetensorsFile) else given
    raise ModelMismatchError(_differences(owner, own, needed, aliases, like))


def _checked(
    owner: str,
    held: SafetensorsFile | Mapping[str, Any],
    names: Mapping[str, str],
    like: Mapping[str, Tensor],
    whole: bool,
    exact: bool,
) -> Any:
    for name, own in names.items() if whole else ():
        shape, wanted = shape_of(held, own), tuple(like[name].shape)
        if shape != wanted and like[name].is_floating_point():
            raise ModelMismatchError(f"{owner} has {own!r} in shape {shape}, the global model in {wanted}")
        if like[name].is_floating_point() and not isinstance(held, SafetensorsFile | NamedWeights):
            _check_numbers(owner, own, as_tensor(held[own]))
    if isinstance(held, SafetensorsFile):
        return NamedWeights(held, names)
    used = set(names.values())
    more = [own for own in held if own not in used and as_tensor(held[own]).is_floating_point()] if exact else []
    if more:
        raise ModelMismatchError(
            f"{owner} also has {_first(more)}, which the model has not: give the model that the weights belong to"
        )
    if all(name == own for name, own in names.items()) and all(isinstance(held[own], Tensor) for own in used):
        return held
    return NamedWeights(held, names)


def _check_numbers(owner: str, name: str, tensor: Tensor) -> None:
    """Refuse what is averaged in silence as something else, such as complex numbers without their imaginary part."""
    if not tensor.is_floating_point() or tensor.layout != torch.strided or tensor.is_meta:
        kind = "meta" if tensor.is_meta else str(tensor.layout).removeprefix("torch.")
        raise ModelMismatchError(
            f"{owner} has {name!r} in {tensor.dtype} and {kind}; weights are dense floating-point numbers"
        )


def _check_tied(
    owner: str,
    held: SafetensorsFile | Mapping[str, Any],
    names: Mapping[str, str],
    aliases: Mapping[str, Sequence[str]],
) -> None:
    """Refuse two values of what the model has once: it would be asked with one, and the answer be about the other."""
    for first, second in ((name, other) for name, others in aliases.items() for other in others if name < other):
        if first in names and second in names and names[first] != names[second]:
            one, two = (
                held.tensor(own) if isinstance(held, SafetensorsFile) else as_tensor(held[own])
                for own in (names[first], names[second])
            )
            if one is not two and not torch.allclose(one.double(), two.double(), rtol=0, atol=0, equal_nan=True):
                raise ModelMismatchError(
                    f"{owner} has other values in {names[second]!r} than in {names[first]!r}, which are one tensor of "
                    "the model: leave one of them out, or give both alike"
                )


def _in_order(owner: str, arrays: Sequence[Any], like: Mapping[str, Tensor]) -> dict[str, Any]:
    if len(arrays) != len(like):
        raise ModelMismatchError(
            f"{owner} is a list of {len(arrays)} arrays, and model.state_dict() has {len(like)} tensors: give one for "
            "each, in its order"
        )
    for place, (array, (name, tensor)) in enumerate(zip(arrays, like.items(), strict=True)):
        shape = tuple(getattr(array, "shape", ()))
        if shape != tuple(tensor.shape):
            raise ModelMismatchError(
                f"{owner} has an array of shape {shape} at place {place} of its list, where "
                f"model.state_dict() has {name!r} of shape {tuple(tensor.shape)}: give the arrays in its order"
            )
    return dict(zip(like, arrays, strict=True))


def _prefixes(own: Sequence[str], like: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield what names may begin with in the model and in the weights, the same first."""
    for ours in _beginnings(like):
        for theirs in _beginnings(own):
            yield ours, theirs


def _beginnings(names: Sequence[str]) -> list[str]:
    """Return the prefixes that all names have, from the empty one to the longest, each to a dot."""
    found = [""]
    within = [name.split(".")[:-1] for name in names]
    for parts in zip(*within, strict=False):
        if len(set(parts)) > 1:
            break
        found.append(f"{found[-1]}{parts[0]}.")
    return found


def _aliases(like: Mapping[str, Tensor]) -> dict[str, list[str]]:
    """Return each tied tensor's other names."""
    names: dict[tuple[Any, ...], list[str]] = {}
    for name, tensor in like.items():
        if tensor.numel():
            names.setdefault((tensor.data_ptr(), tensor.storage_offset(), tuple(tensor.shape)), []).append(name)
    return {
        name: [other for other in tied if other != name] for tied in names.values() if len(tied) > 1 for name in tied
    }


def _within(owner: str, held: SafetensorsFile | Mapping[str, Any]) -> str:
    """Return that the weights lie deeper, in one of a checkpoint's entries; empty where they do not."""
    if isinstance(held, SafetensorsFile | NamedWeights):  # tensors alone
        return ""
    for name, entry in held.items():
        if isinstance(entry, Mapping) and any(hasattr(tensor, "shape") for tensor in entry.values()):
            return f"{owner} is a mapping with {_first(list(held))}, and no state dict: give its {name!r}"
    return ""


def _differences(
    owner: str,
    own: Sequence[str],
    needed: Sequence[str],
    aliases: Mapping[str, Sequence[str]],
    like: Mapping[str, Tensor],
) -> str:
    known = set(own)
    lacking = [name for name in needed if name not in known and not known & {*aliases.get(name, ())}]
    more = [name for name in own if name not in like]
    lacks = f"{owner} lacks {_first(lacking)} of the global model" + (f" and has {_first(more)}" if more else "")
    return (
        f"{lacks}; only a common prefix may differ. Give whole state dicts, such as "
        "{**model.state_dict(), **trained} where only some tensors were trained"
    )


def _first(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(map(repr, names[:_SHOWN])) + (f" and {more} more" if more > 0 else "")
