"""Imports that take seconds, and libraries that are not installed."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def heavy_imports() -> Iterator[None]:
    """Pause the garbage collector: imports make millions of objects that stay, and it would visit each again."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def missing_library(error: ModuleNotFoundError) -> str:
    """Return in one line which library is missing and what installs it; raises the error again where it is our own."""
    name = (error.name or "").partition(".")[0]
    if name in ("", "tracefl"):
        raise error
    return f"{name} is not installed; pip install 'tracefl[run]'"
