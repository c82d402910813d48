"""Warnings of the library, worded for whoever asked."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def reworded(words: Callable[[str], str | None]) -> Iterator[None]:
    """Within the block, hold warnings back; on exit, give them in other words.

    Args:
        words: Returns a warning's text in other words; None for one that is not to be given.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for each in caught:
        if (text := words(str(each.message))) is not None:
            warnings.warn_explicit(text, each.category, each.filename, each.lineno)
