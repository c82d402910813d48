"""Places in the grids are those that the job scripts' commands compose to."""

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


@pytest.mark.parametrize("script", [pytest.param(name, marks=pytest.mark.slow) for name in JOBS])
def test_every_job_s_place_is_that_of_its_configuration(script):
    settings = [settings_of(*overrides) for overrides in JOBS[script]]
    assert [point_of_job(overrides) for overrides in JOBS[script]] == list(map(point_of, settings))
