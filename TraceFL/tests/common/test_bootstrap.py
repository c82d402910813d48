"""Intervals of means, against a slow bootstrap and what is known of them."""

import math
import random

import pytest

from tracefl.common.bootstrap import FEWEST, RESAMPLES, Bootstrap, Interval

VALUES = [(number, random.Random(number).gauss(1.0, 2.0)) for number in range(200)]


def of(values, seed=0, inputs=None, **more):
    inputs = [number for number, _ in values] if inputs is None else inputs
    return Bootstrap(inputs, seed).by_key({"a": values}, **more)["a"]


def test_of_many_values_it_is_the_normal_interval():
    mean = sum(value for _, value in VALUES) / len(VALUES)
    error = (sum((value - mean) ** 2 for _, value in VALUES) / len(VALUES) ** 2) ** 0.5
    found = of(VALUES)
    assert found.inputs == len(VALUES)
    assert found.low == pytest.approx(mean - 1.96 * error, abs=0.2 * error)
    assert found.high == pytest.approx(mean + 1.96 * error, abs=0.2 * error)


def test_an_input_is_drawn_with_all_of_its_values():
    """Five times the same input is no more than one: against a bootstrap that draws groups, slowly."""
    five = [(number % 40, value) for number, value in VALUES]
    draw, means = random.Random(7), []
    for _ in range(RESAMPLES):
        drawn = [draw.randrange(40) for _ in range(40)]
        values = [value for number in drawn for place, value in five if place == number]
        means.append(sum(values) / len(values))
    means.sort()
    found = of(five)
    assert found.inputs == 40
    assert found.low == pytest.approx(means[25], abs=0.08)
    assert found.high == pytest.approx(means[975], abs=0.08)


def test_sums_are_the_means_times_the_number():
    found, sums = of(VALUES), of(VALUES, sums=True)
    assert (sums.low, sums.high) == (pytest.approx(200 * found.low), pytest.approx(200 * found.high))


def test_the_seed_decides_and_the_order_of_the_inputs_does_not():
    assert of(VALUES) == of(VALUES[::-1])
    assert of(VALUES) != of(VALUES, seed=1)


def test_what_has_no_interval():
    assert of([(0, 1.0)]) is None
    assert of([(0, 1.0), (0, 2.0)]) is None  # one input, twice
    assert of([(0, 1.0), (1, math.inf)]) is None
    assert of([], inputs=[0, 1]) is None


def test_draws_without_a_value_do_not_count():
    assert of([(0, 1.0), (1, 3.0)], inputs=range(50)) == Interval(1.0, 3.0, 2)


@pytest.mark.parametrize(
    ("interval", "settled"),
    [
        (Interval(0.1, 0.2, FEWEST), True),
        (Interval(-0.2, -0.1, FEWEST), True),
        (Interval(-0.1, 0.1, 100), False),
        (Interval(0.1, 0.2, FEWEST - 1), False),
    ],
)
def test_settled(interval, settled):
    assert interval.is_settled == settled
