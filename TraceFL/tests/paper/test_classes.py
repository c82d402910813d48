"""Figure 5 over the classes, by hand."""

import math

import pytest
from matplotlib import pyplot as plt

from tests.helpers.finished import finish
from tests.helpers.made_exhibits import made_run
from tests.helpers.made_page import traced_input
from tests.helpers.round_files import write_rounds
from tracefl.errors import RecordError
from tracefl.paper.classes import CLASS_COLUMNS, class_rows, draw_classes, read_classes
from tracefl.paper.rule_findings import SeedMean
from tracefl.records.checksums import seal

NAMES = ["ant", "bee", "cat"]


def make(logs, traced, **values):
    """Make a run; ``traced`` holds (label, traced client, correct, chance) of each input."""
    run = made_run(logs, [(0.5, 0.9, 0.3)], "experiment=figure5", **values)
    columns = ("label", "traced_client", "localized", "chance")
    rows = [dict(zip(columns, row, strict=True)) for row in traced]
    inputs = [
        traced_input(number, scores={row["traced_client"]: 0.7, "0": 0.3}, **row) for number, row in enumerate(rows)
    ]
    write_rounds(run.path, [{"round": 1}], traced=inputs)
    finish(run.path, 1, classes=NAMES)
    return run


@pytest.fixture
def runs(tmp_path):
    one = [(0, "3", True, 0.2), (0, "3", True, 0.4), (0, "5", False, 0.6), (0, "4", True, 0.8), (1, "3", True, 0.5)]
    two = [(0, "7", True, 0.5), (0, "7", False, 0.5)]
    return [make(tmp_path, one, seed=1), make(tmp_path, two, seed=2)]


def test_means_of_each_class_over_seeds(runs):
    ant, bee, cat = read_classes(runs)
    # ant: 3 of 4 and 1 of 2; chance (0.2 + 0.4 + 0.6 + 0.8) / 4 = 0.5 and 0.5; at most three clients came first
    assert (ant.name, ant.inputs, ant.clients) == ("ant", 6, 3)
    assert ant.localization == SeedMean(pytest.approx(0.625), pytest.approx(0.25 / math.sqrt(2)), 2)
    assert ant.chance == SeedMean(pytest.approx(0.5), pytest.approx(0), 2)
    assert (bee.inputs, bee.localization, bee.chance) == (1, SeedMean(1.0, None, 1), SeedMean(0.5, None, 1))
    assert (cat.inputs, cat.clients, cat.localization, cat.chance) == (0, 0, None, None)


def test_a_class_without_inputs_is_said_and_not_drawn(runs, tmp_path, monkeypatch):
    drawn, texts = {}, []
    close = plt.close

    def remember(figure):
        (ax,) = figure.axes
        for container in ax.containers:
            drawn[container.get_label()] = [tuple(point) for point in container.lines[0].get_xydata()]
        texts.extend(text.get_text() for text in ax.texts)
        assert [label.get_text() for label in ax.get_yticklabels()] == ["0 ant", "1 bee", "2 cat"]
        close(figure)

    monkeypatch.setattr(plt, "close", remember)
    found = {"GPT DBpedia": read_classes(runs)}
    files = draw_classes(found, tmp_path / "classes")
    assert [file.name for file in files] == ["classes.png", "classes.pdf"]
    assert drawn == {
        "localization accuracy": [(pytest.approx(62.5), 0), (100, 1)],
        "localization by chance": [(pytest.approx(50), 0), (50, 1)],
    }
    assert texts == ["inputs", "6", "1", "0", "clients", "3", "1", "0"]
    rows = class_rows(found)
    assert all(tuple(row) == CLASS_COLUMNS for row in rows)
    assert [(row["name"], row["seeds"], row["chance_accuracy"]) for row in rows] == [
        ("ant", 2, pytest.approx(0.5)),
        ("bee", 1, 0.5),
        ("cat", 0, None),
    ]


@pytest.mark.parametrize(
    ("file", "text"),
    [("rounds/0001/round.json", "{}"), ("results.json", "{}"), ("results.json", '{"classes": 3}')],
)
def test_a_damaged_file_is_named(runs, file, text):
    (runs[0].path / file).write_text(text)
    seal(runs[0].path)
    with pytest.raises(RecordError, match=f"{runs[0].path}.* is damaged"):
        read_classes(runs)


def test_a_run_without_a_traced_input_is_damaged(runs):
    write_rounds(runs[0].path, [{"round": 1}])
    with pytest.raises(RecordError, match=f"{runs[0].path} is damaged: its rounds hold no traced input"):
        read_classes(runs)
