"""Run folders damaged at random from a fixed seed: each command gives the same answer, or one line.

What checksums that were made again may hide, a signature must tell: ``examine`` has the rule. TRACEFL_MUTATIONS is how
many are made of each run by the long tests: TRACEFL_MUTATIONS=5000 pytest --all tests/records/test_fuzzed_folders.py
"""

import math
import os
import shutil

import pytest

from tests.helpers.fuzzed import RUNS, examine, make
from tracefl.provenance import standing_out

ROOT_SEED = 16
ALWAYS = range(10)  # mutations of each run
LONG = [range(first, first + 100) for first in range(10, int(os.environ.get("TRACEFL_MUTATIONS", "1010")), 100)]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def everybody_stands_out():
    """Let each round count and each suspicion: models of seconds know too little, and there would be no table."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(standing_out, "LEAST_SKILL", -math.inf)
        patch.setattr(standing_out, "_DRIFT", 0.0)
        yield


@pytest.fixture(scope="module", params=RUNS)
def fuzzed(request, tmp_path_factory, everybody_stands_out):
    """A run, and what it answers."""
    return make(request.param, tmp_path_factory.mktemp(request.param))


def check(fuzzed, numbers, folder):
    """Damage a run once for each number."""
    found = []
    for number in numbers:
        place = folder / str(number)
        place.mkdir()
        found += examine(fuzzed, f"{ROOT_SEED} {number}", place)[1]
        shutil.rmtree(place)
    assert not found, "\n\n".join(map(str, found))


def test_a_damaged_folder_gives_the_same_answer_or_one_line(fuzzed, tmp_path):
    check(fuzzed, ALWAYS, tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("numbers", LONG, ids=lambda numbers: f"{numbers.start} to {numbers.stop - 1}")
def test_many_damaged_folders_give_the_same_answer_or_one_line(fuzzed, tmp_path, numbers):
    check(fuzzed, numbers, tmp_path)
