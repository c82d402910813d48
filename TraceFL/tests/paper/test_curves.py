"""What figures draw, by hand."""

import math

import pytest

from tests.helpers.made_exhibits import made_run
from tracefl.paper.curves import CURVE_COLUMNS, Mark, curve_rows, figure_pages, size_words
from tracefl.paper.exhibits import EXHIBITS
from tracefl.paper.rule_findings import SeedMean

DENSENET = ("experiment=figure3", "model=densenet121", "dataset=mnist")
DIGITS = ("experiment=figure2", "model=resnet18", "dataset=digits")
FIGURE2, FIGURE3, FIGURE4 = EXHIBITS["figure2"], EXHIBITS["figure3"], EXHIBITS["figure4"]


def test_rounds_are_means_and_spreads_over_seeds(tmp_path):
    one = made_run(tmp_path, [(0.2, 0.9, 0.3), (0.4, "", ""), (0.6, 1.0, 0.5)], *DIGITS, seed=1)
    two = made_run(tmp_path, [(0.4, 0.7, 0.5), (0.4, "", ""), (0.2, "", "")], *DIGITS, seed=2)
    ((words, (panel,)),) = figure_pages(FIGURE2, [one, two]).items()
    assert (words, panel.title, panel.marks, panel.same_size) == ("alpha 0.3", "ResNet-18\ndigits", [], False)
    localization = panel.curves["localization_accuracy"]
    # round 1: 0.9 and 0.7, deviation 0.2 / sqrt(2); round 2: nothing traced, which is not zero; round 3: one seed
    assert localization[1] == SeedMean(pytest.approx(0.8), pytest.approx(0.2 / math.sqrt(2)), 2)
    assert localization[2] is None
    assert localization[3] == SeedMean(1.0, None, 1)
    assert panel.curves["chance_accuracy"][1].mean == pytest.approx(0.4)
    assert [value.mean for value in panel.curves["global_accuracy"].values()] == pytest.approx([0.3, 0.4, 0.4])


def test_over_alpha_means_over_rounds_and_the_best_global_accuracy(tmp_path):
    runs = [
        made_run(tmp_path, [(0.2, 0.8, 0.2), (0.6, 1.0, 0.4)], *DENSENET, dirichlet_alpha=0.1, seed=1),
        made_run(tmp_path, [(0.4, 0.6, 0.2), (0.3, 0.6, 0.2)], *DENSENET, dirichlet_alpha=0.1, seed=2),
        made_run(tmp_path, [(0.5, 1.0, 0.7), (0.9, 1.0, 0.7)], *DENSENET, dirichlet_alpha=0.3, seed=1),
    ]
    ((_, (panel,)),) = figure_pages(FIGURE3, runs).items()
    localization = panel.curves["localization_accuracy"]
    assert list(localization) == [n / 10 for n in range(1, 11)]
    assert localization[0.1].mean == pytest.approx(0.75)  # (0.9 + 0.6) / 2
    assert (localization[0.2], localization[0.3].mean) == (None, 1.0)
    assert panel.curves["global_accuracy"][0.1].mean == pytest.approx(0.5)  # (0.6 + 0.4) / 2
    # the paper's, of its own size: DenseNet-121 on MNIST at alpha 0.2: 100 and 55.62 %
    assert not panel.same_size
    assert Mark("localization_accuracy", 0.2, 1.0) in panel.marks
    assert Mark("global_accuracy", 0.2, 0.5562) in panel.marks
    assert len(panel.marks) == 20


def test_the_published_setting_itself(tmp_path):
    run = made_run(tmp_path, [(0.5, 0.9, 0.3)] * 50, *DIGITS[:2], "dataset=mnist", dirichlet_alpha=0.1)
    ((words, (panel,)),) = figure_pages(FIGURE2, [run]).items()
    assert (words, panel.same_size) == ("alpha 0.1", True)
    marks = [("localization_accuracy", 0.8198), ("global_accuracy", 0.5469), ("worst_round", 0.25)]
    assert panel.marks == [Mark(measure, None, value) for measure, value in marks]


def test_pages_and_panels_are_in_the_paper_s_order(tmp_path):
    rounds = [(0.5, 0.9, 0.3)]
    made = [("gpt", "dbpedia_14", 0.2), ("resnet18", "digits", 0.1), ("resnet18", "mnist", 0.2)]
    runs = [
        made_run(tmp_path, rounds, "experiment=figure2", f"model={model}", f"dataset={dataset}", dirichlet_alpha=alpha)
        for model, dataset, alpha in made
    ]
    pages = figure_pages(FIGURE2, runs)
    titles = {words: [panel.title for panel in panels] for words, panels in pages.items()}
    assert titles == {"alpha 0.1": ["ResNet-18\ndigits"], "alpha 0.2": ["ResNet-18\nMNIST", "GPT\nDBpedia"]}


def test_settings_of_one_place_are_told_apart(tmp_path):
    rounds = [(0.5, 0.9, 0.3)]
    runs = [
        made_run(tmp_path, rounds, *DENSENET),
        made_run(tmp_path, rounds, *DENSENET, batch_size=8),
        made_run(tmp_path, rounds, *DENSENET, "provenance=removal", preset="removal"),
    ]
    ((_, panels),) = figure_pages(FIGURE3, runs).items()
    assert [panel.title for panel in panels] == [
        "DenseNet-121\nMNIST (batch_size=32)",
        "DenseNet-121\nMNIST (batch_size=8)",
        "DenseNet-121\nMNIST, removal",
    ]


def test_noise_is_an_axis_and_the_clip_a_panel(tmp_path):
    runs = [
        made_run(
            *(tmp_path, [(0.5, 0.9, 0.3)], "experiment=figure4"),
            *(f"privacy.noise_multiplier={noise}", f"privacy.clipping_norm={clip}"),
        )
        for noise, clip in ((0.001, 15), (0.003, 15), (0.003, 50))
    ]
    ((_, (low, high)),) = figure_pages(FIGURE4, runs).items()
    assert (low.title, high.title) == ("GPT\nDBpedia, clip 15", "GPT\nDBpedia, clip 50")
    measured = [x for x, value in low.curves["localization_accuracy"].items() if value]
    assert measured == [0.001, 0.003]
    # published, GPT on DBpedia at noise 0.003, clip 50: 91.6 %
    assert Mark("global_accuracy", 0.003, 0.916) in high.marks


def test_rows_hold_what_is_drawn_and_what_is_missing(tmp_path):
    run = made_run(tmp_path, [(0.5, 0.9, 0.3)] * 15, *DENSENET, dirichlet_alpha=0.1)
    panels = figure_pages(FIGURE3, [run])[""]
    rows = list(curve_rows(FIGURE3, panels, FIGURE3.missing([run])))
    assert all(set(row) == set(CURVE_COLUMNS) for row in rows)
    drawn = [row for row in rows if row["seeds"]]
    (row,) = drawn
    assert (row["alpha"], row["localization_accuracy"], row["chance_accuracy"]) == (0.1, pytest.approx(0.9), 0.3)
    assert (row["published_localization_accuracy"], row["published_best_global_accuracy"]) == (1.0, 0.3574)
    missing = [row for row in rows if not row["seeds"]]
    assert len(missing) == 59
    assert all(row["localization_accuracy"] is None for row in missing)
    assert all(row["setting"].startswith("no run: alpha ") for row in missing)


def test_size_in_words(tmp_path):
    run = made_run(tmp_path, [(0.5, 0.9, 0.3)] * 2, *DIGITS, num_clients=10)
    other = made_run(tmp_path, [(0.5, 0.9, 0.3)] * 3, *DIGITS, num_clients=20)
    assert size_words([run, other]) == "10 to 20 clients, 10 a round, 2 to 3 rounds"
    tiny = ("++model.config.layers=[1,1,1,1]", "model.pretrained=false")
    small = made_run(tmp_path, [(0.5, 0.9, 0.3)] * 2, *DIGITS, *tiny, num_clients=10)
    assert size_words([small]) == "10 clients, 10 a round, 2 rounds, models of other sizes, random weights"


def test_a_smaller_model_is_not_the_published_setting(tmp_path):
    setting = (*DIGITS[:2], "dataset=mnist")
    rounds = [(0.5, 0.9, 0.3)] * 50
    for more in (("model.pretrained=false",), ("++model.config.layers=[1,1,1,1]",)):
        ((_, (panel,)),) = figure_pages(FIGURE2, [made_run(tmp_path, rounds, *setting, *more)]).items()
        assert not panel.same_size
