"""Where provenance is computed, and within which bounds."""

import pytest

from tracefl.provenance import Compute


def test_the_inputs_in_one_forward():
    assert (Compute().backward_batch_size, Compute().forward_batch_size) == (32, 256)
    assert (Compute(batch_size=5).backward_batch_size, Compute(batch_size=5).forward_batch_size) == (5, 5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"memory_budget": 0}, "memory_budget must be at least 1 byte, got 0"),
        ({"precision": "fp8"}, "precision must be one of float32, bf16, got 'fp8'"),
    ],
)
def test_a_value_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        Compute(**arguments)
