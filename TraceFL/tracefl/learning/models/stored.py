"""Building an architecture that nobody vouches for: within bounds, and without running code of its own."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from math import prod
from typing import Any

import torch
from torch import nn
from torch.nn.modules import module as hooks

from tracefl.errors import RecordError
from tracefl.learning.models.hub import brief, transformers_errors
from tracefl.learning.models.registry import build_model, find_model
from tracefl.learning.models.settings import ModelSpec

_CODE = ("auto_map", "trust_remote_code", "custom_pipelines", "quantization_config", "_target_")
"""Keys of a configuration by which transformers finds code that is not its own."""

_ATTENTION = (None, "eager", "sdpa")  # others may be kernels, which are loaded from the hub

_LARGEST = 100_000_000  # of a whole number in a configuration: a list of as many entries fits in memory
_SPARE = 1_000_000  # numbers and tensors beyond those of the weights: buffers that are not stored


def build_stored(spec: ModelSpec, shapes: Sequence[tuple[int, ...]]) -> nn.Module:
    """Build the architecture of stored weights.

    It is built without memory first, and given up as soon as it has more than the weights can fill: a few digits of a
    description may ask for any number of layers.

    Args:
        spec: The architecture.
        shapes: Of the stored tensors.

    Raises:
        RecordError: It would run code that is not transformers' own, is of other weights, or cannot be built.
    """
    _refuse_code(spec.config)
    errors: tuple[type[Exception], ...] = (
        ValueError,
        TypeError,
        RuntimeError,
        LookupError,
        AttributeError,
        MemoryError,
    )
    if spec.family == "transformers":
        errors = (*transformers_errors(), MemoryError)
    try:
        with _bounded(4 * len(shapes) + 1000, 2 * sum(map(prod, shapes)) + _SPARE), torch.device("meta"):
            find_model(spec.name, spec.family).build(spec)
        return build_model(spec)
    except errors as error:
        raise RecordError(f"model {spec.name!r} cannot be built as it says: {brief(error)}") from error


def _refuse_code(value: Any, depth: int = 0) -> None:
    """Refuse a configuration that names code, an attention of the hub's, or a size that no model has."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in _CODE or ("implementation" in key and inner not in _ATTENTION):
                raise RecordError(
                    f"its configuration has {key}={inner!r}, by which code that is not this program's would run"
                )
            _refuse_code(inner, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            _refuse_code(inner, depth + 1)
    elif isinstance(value, int) and abs(value) > _LARGEST:
        raise RecordError(f"its configuration has the number {value}, and no size is above {_LARGEST}")


@contextmanager
def _bounded(most_tensors: int, most_numbers: int) -> Iterator[None]:
    """Give up building a model, in this thread, once it has more tensors and layers, or numbers in them, than that."""
    here, tensors, numbers = threading.get_ident(), 0, 0

    def count(_module: nn.Module, _name: str, part: Any) -> None:
        nonlocal tensors, numbers
        if threading.get_ident() != here:
            return
        tensors += 1
        numbers += part.numel() if isinstance(part, torch.Tensor) else 0
        if tensors > most_tensors or numbers > most_numbers:
            raise ValueError("it has more layers or larger ones than the stored weights can fill")

    with ExitStack() as stack:
        for register in (
            hooks.register_module_parameter_registration_hook,
            hooks.register_module_buffer_registration_hook,
            hooks.register_module_module_registration_hook,
        ):
            stack.callback(register(count).remove)
        yield
