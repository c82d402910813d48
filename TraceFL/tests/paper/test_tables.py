"""The cells of the paper's tables, by hand."""

import csv
import io

import pytest

from tests.helpers.made_exhibits import made_run
from tests.helpers.made_runs import FLIP, does_not_apply, found, make_faulty_run
from tracefl.paper.collected_run import read_run
from tracefl.paper.exhibits import EXHIBITS
from tracefl.paper.tables import make_table
from tracefl.records.tables import to_csv


def table(name, runs):
    """Return a table's cells by setting, and the rows of its CSV."""
    exhibit = EXHIBITS[name]
    grid, columns, rows = make_table(exhibit, runs, exhibit.missing(runs))
    assert all(len(row) == len(grid.headings) for row in grid.rows)
    written = list(csv.DictReader(io.StringIO(to_csv(columns, rows))))
    return {row[0]: dict(zip(grid.headings[1:], row[1:], strict=True)) for row in grid.rows}, written


def test_table_3_over_seeds_beside_the_published_numbers(tmp_path):
    runs = [
        made_run(tmp_path, [(0.5, accuracy, 0.4)] * 15, "experiment=table3", num_clients=200, seed=seed)
        for seed, accuracy in ((1, 0.9), (2, 0.7))
    ]
    small = made_run(tmp_path, [(0.5, 0.9, 0.3)], "experiment=table3", num_clients=20)
    cells, rows = table("table3", [*runs, small])
    assert len(cells) == 10  # nine of the paper, one of our own, last
    # 0.9 and 0.7: 80 ± 14.1; published for 200 clients: global 98.49, localization 99.76
    assert cells["200 clients, 10 a round"] == {
        "seeds": "2",
        "global": "50.0 ± 0.0",
        "localization": "80.0 ± 14.1",
        "chance": "40.0 ± 0.0",
        "published global": "98.5",
        "published localization": "99.8",
    }
    no_run = cells["400 clients, 50 a round: no run"]
    assert list(no_run.values()) == ["0", "-", "-", "-", "98.8", "100.0"]
    assert list(cells)[-1] == "20 clients, 10 a round (GPT DBpedia, alpha 0.3, 1 rounds)"
    assert cells[list(cells)[-1]]["published global"] == "-"
    assert [row["seeds"] for row in rows] == ["2", *["0"] * 8, "1"]
    assert float(rows[0]["localization_accuracy"]) == pytest.approx(0.8)
    assert (rows[1]["localization_accuracy"], rows[1]["published_best_global_accuracy"]) == ("", "0.9829")


def test_table_2_is_in_the_paper_s_order(tmp_path):
    noisy = ("experiment=table2", "privacy.noise_multiplier=0.012", "privacy.clipping_norm=15")
    cells, _ = table("table2", [made_run(tmp_path, [(0.5, 0.9, 0.3)] * 15, *noisy)])
    assert list(cells) == ["noise 0.003, clip 15: no run", "noise 0.006, clip 10: no run", "noise 0.012, clip 15"]
    assert list(cells["noise 0.012, clip 15"].values()) == ["1", "50.0", "90.0", "30.0", "88.8", "100.0"]


def test_another_way_of_tracing_is_a_row_of_its_own(tmp_path):
    rounds = [(0.5, 0.9, 0.3)] * 15
    one = made_run(tmp_path, rounds, "experiment=table3", num_clients=200)
    other = made_run(tmp_path, rounds, "experiment=table3", "provenance=removal", num_clients=200, preset="removal")
    cells, _ = table("table3", [one, other])
    assert {"200 clients, 10 a round", "200 clients, 10 a round, removal"} < set(cells)


def test_table_1_has_the_rules_that_the_paper_compares(tmp_path):
    setting = ("model=densenet121", "dataset=mnist", "num_rounds=15", "dirichlet_alpha=0.7")
    suspects = [
        row
        for number in range(1, 16)
        for row in (
            found(number, "provenance", 0.9),
            found(number, "artifact", 0.6),
            found(number, "krum", 0.2),
            does_not_apply(number, "feddebug", "no ReLU"),
        )
    ]
    run = read_run(make_faulty_run(tmp_path, suspects, *setting, fault=FLIP, rounds=15), "run", {})
    cells, rows = table("table1", [run])
    assert len(cells) == 18
    first = cells["DenseNet-121 MNIST alpha 0.7, label_flip 100 %, 1 of 10"]
    assert first == {
        "seeds": "1",
        "rounds": "15 of 15",
        "provenance": "90.0",
        "chance": "10.0",
        "artifact": "60.0",
        "feddebug": "NA",
        "published artifact": "100.0",
        "published feddebug": "86.0",
    }
    missing = cells["GPT DBpedia alpha 0.7, label_flip 100 %, 1 of 10"]
    assert list(missing.values()) == ["0", "no run", "-", "-", "-", "-", "94.0", "NA"]
    assert {row["rule"] for row in rows if row["seeds"] == "1"} == {"provenance", "artifact", "feddebug"}
    assert len([row for row in rows if row["seeds"] == "0"]) == 2 * 17
