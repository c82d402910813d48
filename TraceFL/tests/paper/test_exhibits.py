"""Which runs a figure or a table is made of, and which it lacks."""

import pytest

from tests.helpers.made_exhibits import made_run
from tests.helpers.made_runs import FLIP
from tracefl.paper.exhibits import EXHIBITS, missing_lines, usable_runs
from tracefl.paper.grid_points import GridPoint
from tracefl.paper.published import find_published, find_published_suspects

ROUNDS = [(0.5, 0.9, 0.3)] * 2
FIGURE3 = ("experiment=figure3", "model=densenet121", "dataset=mnist")


@pytest.mark.parametrize(
    ("name", "places", "published"),
    # One of Figure 4's runs is not among the published results: DenseNet-121 on MNIST at noise 0.0001, clip 50.
    [
        ("figure2", 36, 36),
        ("figure3", 60, 60),
        ("figure4", 36, 35),
        ("figure5", 1, 1),
        ("table2", 3, 3),
        ("table3", 9, 9),
    ],
)
def test_the_grids_are_the_paper_s(name, places, published):
    grid = EXHIBITS[name].grid
    assert (len(grid), len(set(grid))) == (places, places)
    assert sum(find_published(point) is not None for point in grid) == published


@pytest.mark.parametrize("name", ["figure6", "table1"])
def test_every_place_of_table_1_is_published(name):
    assert len(EXHIBITS[name].grid) == 18
    assert all(find_published_suspects(point) for point in EXHIBITS[name].grid)


def test_a_place_is_missing_until_a_run_of_the_very_setting_is_there(tmp_path):
    exhibit = EXHIBITS["figure3"]
    here = made_run(tmp_path, [(0.5, 0.9, 0.3)] * 15, *FIGURE3, dirichlet_alpha=0.3)
    small = made_run(tmp_path, ROUNDS, *FIGURE3, dirichlet_alpha=0.4)
    missing = exhibit.missing([here, small])
    assert len(missing) == 59
    assert set(exhibit.grid) - set(missing) == {GridPoint("mnist", "densenet121", 0.3, 100, 10, 15)}
    assert "DenseNet-121 MNIST, alpha 0.1, 0.2, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1" in missing_lines(exhibit, missing)


def test_missing_places_of_two_fields_are_lines_of_the_second():
    noise, table3 = EXHIBITS["figure4"], EXHIBITS["table3"]
    lines = missing_lines(noise, noise.grid[:4])  # noise 0.0001 and 0.0003, clip 15 and 50 each
    assert lines == [f"DenseNet-121 MNIST, clip {clip}, noise 0.0001, 0.0003" for clip in (15, 50)]
    assert missing_lines(table3, table3.grid[:2]) == ["GPT DBpedia, 10 a round, 200, 400 clients"]


def test_runs_that_say_something_else_are_left_out_by_name(tmp_path):
    good = made_run(tmp_path, ROUNDS, *FIGURE3, seed=1)
    twin = made_run(tmp_path / "again", ROUNDS, *FIGURE3, seed=1)
    other_seed = made_run(tmp_path, ROUNDS, *FIGURE3, seed=2)
    faulty = made_run(tmp_path, ROUNDS, *FIGURE3, fault=FLIP)
    untraced = made_run(tmp_path, [(0.5, "", "")] * 2, *FIGURE3, seed=3)
    even = made_run(tmp_path, ROUNDS, *FIGURE3, "dataset.partition=iid")
    private = made_run(tmp_path, ROUNDS, *FIGURE3, "privacy=central")
    prox = made_run(tmp_path, ROUNDS, *FIGURE3, "strategy=fedprox")
    runs = [good, twin, other_seed, faulty, untraced, even, private, prox]
    usable, left_out = usable_runs(EXHIBITS["figure3"], runs)
    assert usable == [good, other_seed]
    reasons = ("is the same run as", "has faulty clients (label_flip 100 %", "traced no input", "has no alpha")
    reasons += ("has privacy=central", "has strategy=fedprox")
    assert len(left_out) == 6
    for run, line, reason in zip((twin, faulty, untraced, even, private, prox), left_out, reasons, strict=True):
        assert line.startswith(f"{run.row['folder']} {reason}")
    assert usable_runs(EXHIBITS["table1"], [good])[1] == [f"{good.row['folder']} looked for no faulty clients"]
    assert usable_runs(EXHIBITS["figure4"], [good])[1] == [f"{good.row['folder']} has no noise"]


def test_whose_a_run_is(tmp_path):
    figure4 = ("experiment=figure4", "privacy.clipping_norm=15")
    mild = made_run(tmp_path, ROUNDS, *figure4, "privacy.noise_multiplier=0.003")
    other = made_run(tmp_path, ROUNDS, *figure4, "privacy.noise_multiplier=0.001")
    app = made_run(tmp_path, ROUNDS, "model=resnet18", exp_key="exp_1")
    owners = [{name for name, exhibit in EXHIBITS.items() if exhibit.has(run)} for run in (mild, other, app)]
    assert owners == [{"figure4", "table2"}, {"figure4"}, {"figure2"}]
