"""Warnings of the library, worded for whoever asked."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def reworded(words: Callable[[str], str]) -> Iterator[None]:
    """Within the block, hold warnings back; on exit, give them in other words.

    Args:
        words: Returns a warning's text in other words.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for each in caught:
        warnings.warn_explicit(words(str(each.message)), each.category, each.filename, each.lineno)
