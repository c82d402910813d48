"""Warnings in other words: each once, from where it was, and none of others' is lost."""

import warnings

import pytest

from tracefl.common.warned import reworded
from tracefl.common.words import counted


def test_a_warning_is_given_in_other_words():
    with (
        pytest.warns(UserWarning, match="provenance") as caught,
        reworded("provenance.{}".format),
    ):
        warnings.warn("also=[x] would trace it", stacklevel=1)
    assert [str(each.message) for each in caught] == ["provenance.also=[x] would trace it"]
    assert caught[0].filename == __file__


def test_things_are_counted():
    assert [counted(n, "round") for n in (0, 1, 2)] == ["0 rounds", "1 round", "2 rounds"]
