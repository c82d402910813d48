"""The rules side by side, from made folders with known numbers."""

import pytest

from tests.helpers.made_runs import FLIP, does_not_apply, found, make_faulty_run, without_inputs
from tracefl.paper.collected_run import read_run
from tracefl.paper.suspects_settings import suspects_settings
from tracefl.paper.suspects_table import SUSPECTS_COLUMNS, accuracy_grid, seconds_grid, suspects_rows


@pytest.fixture
def make(tmp_path):
    """Make a run and read it, as collect does."""
    return lambda rows, *overrides, **more: read_run(make_faulty_run(tmp_path, rows, *overrides, **more), "run", {})


def cells(grid, label):
    (row,) = [row for row in grid.rows if row[0] == label]
    return dict(zip(grid.headings, row, strict=True))


def test_mean_over_seeds_with_its_spread_and_chance_beside(make):
    # provenance: (0.8 + 1.0) / 2 = 0.9 and 0.7 of two seeds: mean 0.8, deviation sqrt(0.1² + 0.1²) = 0.1414
    one = make([found(1, "provenance", 0.8), found(2, "provenance", 1.0), found(2, "krum", 0.5)], "seed=1")
    more = {"chance_accuracy": 0.2}
    two = make([without_inputs(1), found(2, "provenance", 0.7, **more), found(2, "krum", 0.5, **more)], "seed=2")
    (setting,) = suspects_settings([one, two])
    assert setting.label == "resnet18 mnist alpha 0.3, label_flip 100 %, 1 of 10"
    grid = accuracy_grid([setting])
    assert grid.headings == ["setting", "seeds", "rounds", "provenance", "chance", "krum"]
    (row,) = grid.rows
    assert row[1:] == ["2", "3 of 4", "80.0 ± 14.1", "15.0", "50.0 ± 0.0"]


def test_what_does_not_apply_is_na_and_what_was_not_measured_a_dash(make):
    image = make([found(1, "provenance", 1.0), found(1, "feddebug", 0.0)])
    text = make(
        [found(1, "provenance", 1.0), does_not_apply(1, "feddebug", "needs ReLU")], "model=gpt", "dataset=dbpedia_14"
    )
    silent = make([without_inputs(1), without_inputs(2)], "dirichlet_alpha=1.0")
    settings = suspects_settings([image, text, silent])
    grid = accuracy_grid(settings)
    label = "{} alpha {}, label_flip 100 %, 1 of 10".format
    assert cells(grid, label("resnet18 mnist", 0.3))["feddebug"] == "0.0"
    assert cells(grid, label("gpt dbpedia_14", 0.3))["feddebug"] == "NA"
    nothing = cells(grid, label("resnet18 mnist", 1.0))
    assert [nothing[h] for h in ("rounds", "provenance", "chance", "feddebug")] == ["0 of 2", "-", "-", "-"]
    seconds = seconds_grid(settings)
    assert cells(seconds, "gpt dbpedia_14, 10 clients, cpu")["feddebug"] == "NA"
    assert cells(seconds, "resnet18 mnist, 10 clients, cpu")["feddebug"] == "0.1"  # 1 s for 10 inputs


def test_table_1_stands_beside_its_setting_alone(make):
    table1 = ("model=densenet121", "num_rounds=15", "dirichlet_alpha=0.7")
    rows = [found(n, "provenance", 1.0) for n in range(1, 16)]
    same = make(rows, *table1, rounds=15)
    partial = make(rows, *table1, rounds=15, fault=FLIP | {"share": 0.3})
    grid = accuracy_grid(suspects_settings([same, partial]))
    assert grid.headings[-2:] == ["published artifact", "published feddebug"]
    assert [row[-2:] for row in grid.rows] == [["100.0", "86.0"], ["-", "-"]]
    alone = accuracy_grid(suspects_settings([partial]))
    assert not any("published" in heading for heading in alone.headings)
    assert "published" not in alone.caption


def test_settings_from_the_easiest_fault_on_and_runs_without_suspects_left_out(make):
    rows = [found(1, "provenance", 1.0)]
    shares = [make(rows, fault=FLIP | {"share": share}) for share in (0.1, 1.0, 0.3)]
    two = make(rows, fault=FLIP | {"clients": [0, 1]})
    backdoor = make(rows, fault=FLIP | {"name": "backdoor", "share": 0.5, "target": 0})
    honest = make(None, fault=None)
    settings = suspects_settings([honest, two, *shares, backdoor])
    assert [setting.label.split(", ", 1)[1] for setting in settings] == [
        "backdoor 50 %, 1 of 10",
        "label_flip 100 %, 1 of 10",
        "label_flip 30 %, 1 of 10",
        "label_flip 10 %, 1 of 10",
        "label_flip 100 %, 2 of 10",
    ]


def test_settings_of_the_same_words_say_in_what_they_differ(make):
    rows = [found(1, "provenance", 1.0)]
    runs = [make(rows, "client.lr=0.5"), make(rows, "client.lr=0.25", "seed=1"), make(rows, "dirichlet_alpha=1.0")]
    words = "resnet18 mnist alpha {}, label_flip 100 %, 1 of 10{}".format
    assert {setting.label for setting in suspects_settings(runs)} == {
        words(0.3, " (client.lr=0.5)"),
        words(0.3, " (client.lr=0.25)"),
        words(1.0, ""),
    }


def test_rows_in_full(make):
    more = {"mean_rank": 2.0, "precision": 0.5, "auroc": 0.75, "whole_localization": 1.0}
    one = make([without_inputs(1), found(2, "provenance", 0.5, inputs=4, seconds=2.0, **more)], "seed=1")
    two = make(
        [found(1, "provenance", 1.0, inputs=4, seconds=1.0), does_not_apply(1, "feddebug", "needs ReLU")], "seed=2"
    )
    rows = list(suspects_rows(suspects_settings([one, two])))
    assert all(set(row) == set(SUSPECTS_COLUMNS) for row in rows)
    provenance, feddebug = rows
    expected = {"rule": "provenance", "model": "resnet18", "dirichlet_alpha": 0.3, "seeds": 2, "seeds_measured": 2}
    expected |= {"localization_accuracy": 0.75, "mean_rank": 2.0, "precision": 0.5, "auroc": 0.75, "applies": True}
    expected |= {"whole_localization": 1.0, "whole_localization_spread": None, "rounds": 2, "rounds_without_inputs": 1}
    expected |= {"fault": "label_flip 100 %, 1 of 10", "fault_share": 1.0, "faulty_clients": 1}
    expected |= {"seconds_per_input": (0.5 + 0.25) / 2, "seconds_per_round": 1.5}
    assert {key: provenance[key] for key in expected} == expected
    assert provenance["localization_accuracy_spread"] == pytest.approx(0.5 / 2**0.5)
    assert (feddebug["rule"], feddebug["applies"], feddebug["note"]) == ("feddebug", False, "needs ReLU")
    assert feddebug["localization_accuracy"] is None
