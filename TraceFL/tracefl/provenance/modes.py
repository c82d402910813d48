"""The caller's mode changes no answer: neither ``torch.no_grad`` nor ``torch.inference_mode``, and no graph is left."""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")


def in_any_mode(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate what is asked from outside: it computes without a graph, and outside inference mode.

    Tensors that are made in inference mode could not be written to, nor differentiated, where that mode is left.
    """

    @wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        with torch.inference_mode(False), torch.no_grad():
            return function(*args, **kwargs)

    return called
