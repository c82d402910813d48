"""Places in the grids; ``test_runs.py`` compares each job's with what its command composes to."""

import pytest

from tracefl.conf.composing import resolved_config
from tracefl.paper.grid_points import FLIPPED, GridPoint, point_of, point_of_job
from tracefl.paper.runs import JOBS
from tracefl.records.settings import read_keys


def settings_of(*overrides):
    return read_keys(resolved_config(overrides))


def test_a_place_by_hand():
    settings = settings_of("experiment=table2", "privacy.noise_multiplier=0.012", "privacy.clipping_norm=15")
    expected = GridPoint("dbpedia_14", "gpt", 0.3, 100, 10, 15, "central", 0.012, 15.0)
    assert point_of(settings) == expected
    assert point_of_job(JOBS["dp"][-1]) == expected
    assert point_of_job(JOBS["faulty"][0]).fault == FLIPPED


def test_another_partition_has_no_alpha():
    assert point_of(settings_of("dataset.partition=iid")).alpha is None


def test_what_no_place_has_is_refused():
    with pytest.raises(KeyError, match="client.lr"):
        point_of_job(("experiment=figure3", "client.lr=1"))
