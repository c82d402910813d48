"""State dicts: reading them from a file, and copying them into a model that they must fit."""

import logging
import pickle
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from tracefl.common.paths import expand
from tracefl.errors import ConfigError, ModelMismatchError
from tracefl.learning.models.hub import brief

log = logging.getLogger(__name__)

NAMES_SHOWN = 3


def read_state_dict(path: str) -> dict[str, Tensor]:
    """Read a state dict without running code from the file.

    Args:
        path: A ``.pt`` or ``.pth`` file of torch, or a ``.safetensors`` file.

    Returns:
        Parameter and buffer names to CPU tensors.

    Raises:
        ConfigError: There is no such file, or it cannot be read.
        ModelMismatchError: The file holds something other than a state dict.
    """
    file = expand(path)
    reader = _READERS.get(file.suffix)
    if reader is None:
        raise ConfigError(f"model.pretrained={path!r}: expected true, false or a path in {', '.join(_READERS)}")
    check_exists(path)
    state = reader(file)
    if not isinstance(state, Mapping) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise ModelMismatchError(
            f"model.pretrained={path!r} holds {type(state).__name__}, expected a state dict of names to tensors; "
            "save model.state_dict()"
        )
    return dict(state)


def check_exists(path: str) -> None:
    """Check that a path of weights exists.

    Raises:
        ConfigError: There is no such file or folder.
    """
    if not expand(path).exists():
        raise ConfigError(f"model.pretrained={path!r}: there is no such file; give an existing one, or false")


def load_state(model: nn.Module, state: Mapping[str, Tensor], may_stay: Callable[[str], bool], source: str) -> None:
    """Copy ``state`` into ``model``, except a classifier of another shape.

    Args:
        model: Changed in place.
        state: Names to tensors.
        may_stay: Returns whether a parameter, given by name, may keep its random weights, as the classifier may.
        source: Where the weights come from, used in messages.

    Raises:
        ModelMismatchError: Other names or shapes differ.
    """
    own = model.state_dict()
    fits = {name: name in own and own[name].shape == tensor.shape for name, tensor in state.items()}
    state = {name: tensor for name, tensor in state.items() if fits[name] or not may_stay(name)}
    misshapen = [name for name in state if name in own and not fits[name]]
    unexpected = [name for name in state if name not in own]
    missing = [name for name in own if name not in state and not may_stay(name) and not _is_counter(name)]
    if misshapen or unexpected or missing:
        raise ModelMismatchError(
            f"the weights of {source} do not fit the model: {_count(missing)} missing, {_count(unexpected)} "
            f"unexpected, {_count(misshapen)} of another shape; give weights of this architecture in "
            "model.pretrained, take back what model.config changes, or set model.pretrained=false"
        )
    model.load_state_dict(state, strict=False)
    fresh = [name for name in own if name not in state and not _is_counter(name)]
    log.info("weights=%s loaded=%d random=%s", source, len(state), _count(fresh))


def _is_counter(name: str) -> bool:
    """Return whether a name is BatchNorm's batch counter, which older files lack and nothing uses."""
    return name.endswith(".num_batches_tracked")


def _count(names: Collection[str]) -> str:
    shown = sorted(names)[:NAMES_SHOWN]
    more = ", ..." if len(names) > NAMES_SHOWN else ""
    return f"{len(names)} ({', '.join(shown)}{more})" if names else "0"


def _read_torch(file: Path) -> object:
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise ConfigError(
            f"model.pretrained={str(file)!r} cannot be read as tensors alone ({brief(error)}); save model.state_dict()"
        ) from error


def _read_safetensors(file: Path) -> object:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise ConfigError(f"model.pretrained={str(file)!r} is not a safetensors file: {error}") from error


_READERS: dict[str, Callable[[Path], object]] = {
    ".pt": _read_torch,
    ".pth": _read_torch,
    ".safetensors": _read_safetensors,
}
