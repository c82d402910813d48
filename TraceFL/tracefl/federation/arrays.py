"""The arrays of a reply: each is compared with the model's own tensor before a byte of it is turned into numbers.

Flower sends an array as what ``numpy.save`` writes, with a type, a shape and a kind of serialization beside it. All of
these are the client's words. What counts is the model's own state dict: the file's header must say exactly its shape
and type, and be followed by exactly as many bytes. Only then is anything allocated. Nothing is ever unpickled.
"""

from collections.abc import Mapping
from io import BytesIO
from math import prod
from tokenize import TokenError

import torch
from flwr.app import Array, ArrayRecord
from flwr.common.constant import SType
from numpy.lib import format as npy
from torch import Tensor


def read_arrays(arrays: ArrayRecord, declared: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return what a client sent as a state dict, in the order of the model's own.

    Args:
        arrays: What it sent.
        declared: The model's own state dict.

    Raises:
        ValueError: A name, shape, type or length is another than the model's; the message is the reason.
    """
    odd = sorted(set(arrays) ^ set(declared))
    if odd:
        raise ValueError(f"weights of another model, first {odd[0]}")
    for name, like in declared.items():
        _check(name, arrays[name], like)
    return {name: torch.from_numpy(arrays[name].numpy()) for name in declared}


def _check(name: str, array: Array, like: Tensor) -> None:
    """Compare an array with the model's tensor: what is said beside it, its header, and its length in bytes.

    Raises:
        ValueError: They differ.
    """
    shape, dtype = tuple(like.shape), like.new_empty(0, device="cpu").numpy().dtype
    if array.stype != SType.NUMPY or array.dtype != str(dtype) or tuple(array.shape) != shape:
        raise ValueError(
            f"weights of another shape or type, first {name}: {array.dtype} {_shape(array.shape)} in place of "
            f"{dtype} {_shape(shape)}"
        )
    file = BytesIO(array.data)
    try:
        version = npy.read_magic(file)
        if version != (1, 0):
            raise ValueError(f"version {version} of the format, expected (1, 0)")
        sent_shape, _, sent_dtype = npy.read_array_header_1_0(file)
    except (ValueError, SyntaxError, TokenError) as error:
        raise ValueError(f"weights that cannot be read, first {name}: {error}") from error
    if sent_shape != shape or sent_dtype != dtype:
        raise ValueError(
            f"weights of another shape or type, first {name}: its header says {sent_dtype} "
            f"{_shape(sent_shape)} in place of {dtype} {_shape(shape)}"
        )
    got, expected = len(array.data) - file.tell(), prod(shape) * dtype.itemsize
    if got != expected:
        raise ValueError(f"weights of another length, first {name}: {got} bytes in place of {expected}")


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "scalar"
