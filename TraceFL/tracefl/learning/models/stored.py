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
_SPARE = 1_000_000  # numbers of parameters beyond those of the weights
_SPARE_BUFFERS = (
    1 << 28
)  # the same of buffers, which may not be stored: GPT has a mask of all pairs of positions a layer


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
    _refuse(spec.config, spec.num_classes)
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
        with _bounded(4 * len(shapes) + 1000, 2 * sum(map(prod, shapes))), torch.device("meta"):
            find_model(spec.name, spec.family).build(spec)
        return build_model(spec)
    except errors as error:
        raise RecordError(f"model {spec.name!r} cannot be built as it says: {brief(error)}") from error


def _refuse(value: Any, classes: int) -> None:
    """Refuse a configuration that names code, an attention of the hub's, or a size that no model has.

    Args:
        value: The configuration, or a part of it.
        classes: Number of classes: transformers makes a name for each of ``num_labels``.
    """
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in _CODE or ("implementation" in key and inner not in _ATTENTION):
                raise RecordError(
                    f"its configuration has {key}={inner!r}, by which code that is not this program's would run"
                )
            if key == "num_labels" and inner != classes:
                raise RecordError(f"its configuration has num_labels={inner!r}, and the model has {classes} classes")
            _refuse(inner, classes)
    elif isinstance(value, list):
        for inner in value:
            _refuse(inner, classes)
    elif isinstance(value, int) and abs(value) > _LARGEST:
        raise RecordError(f"its configuration has the number {value}, and no size is above {_LARGEST}")


@contextmanager
def _bounded(most_tensors: int, stored: int) -> Iterator[None]:
    """Give up building a model, in this thread, once it has more tensors and layers, or numbers in them, than that.

    Args:
        most_tensors: Of parameters, buffers and layers together.
        stored: Numbers, of parameters and of buffers each, beside what is spare.
    """
    here, tensors = threading.get_ident(), 0
    numbers = dict.fromkeys((True, False), 0)  # of parameters, of buffers

    def count(_module: nn.Module, _name: str, part: Any) -> None:
        nonlocal tensors
        if threading.get_ident() != here:
            return
        tensors += 1
        is_parameter = isinstance(part, nn.Parameter)
        numbers[is_parameter] += part.numel() if isinstance(part, torch.Tensor) else 0
        most = stored + (_SPARE if is_parameter else _SPARE_BUFFERS)
        if tensors > most_tensors or numbers[is_parameter] > most:
            raise ValueError("it has more layers or larger ones than the stored weights can fill")

    with ExitStack() as stack:
        for register in (
            hooks.register_module_parameter_registration_hook,
            hooks.register_module_buffer_registration_hook,
            hooks.register_module_module_registration_hook,
        ):
            stack.callback(register(count).remove)
        yield
