"""What the tables and the picture of an explanation say, read from the figure before it is closed."""

import io
from dataclasses import replace

import pytest
import torch
import torchvision
from matplotlib import pyplot as plt

from tests.helpers.commands import flat
from tracefl.provenance import ClientPart, Explanation, Method, Removal
from tracefl.questions.one_input import ExplainedInput, Question
from tracefl.report.console import TerminalConsole
from tracefl.report.explanation import as_json, group_layers, show
from tracefl.report.explanation_figure import draw_explanation

NAMES = ("[red]cats[/red]", "d$o$gs", "2")
TEXT = Question("text", "so $a$ it is", "the text given", torch.zeros(1, 2), text="so $a$ it is " * 60)
IMAGE = Question("input", "3", "server's example 3", torch.zeros(1, 2), 1, torch.zeros(3, 8, 8, dtype=torch.uint8))


def explained(num_clients, against=2, checked=3):
    """Clients 0, 1, ... with contributions 1, 1/2, 1/3, ..., three quarters of it in one layer of ``body``."""
    parts = []
    for k in range(num_clients):
        t = 1 / (k + 1)
        removal = Removal(2 * t, None if against is None else 5 * t, 0, 0.25) if k < checked else None
        lead = None if against is None else -t
        parts.append(ClientPart(str(k), 1 / num_clients, t, t, 0.5, (t / 4, 3 * t / 4, 0.0), k % 2, lead, removal))
    layers = ("body.0", "body.1", "head")
    return Explanation(7, 1, (0.2, 0.7, 0.1), against, None if against is None else 2.5, layers, tuple(parts))


@pytest.fixture
def draw(tmp_path, monkeypatch):
    """Draw an explanation; returns the panels: input, classes, clients, layers, colours."""
    monkeypatch.setattr(plt, "close", lambda figure: None)

    def call(question, found):
        draw_explanation(ExplainedInput(question, found, Method(), NAMES), tmp_path / "why.png")
        assert (tmp_path / "why.png").stat().st_size > 10_000
        figure = plt.gcf()
        axes = list(figure.axes)
        monkeypatch.undo()
        plt.close(figure)
        return axes

    return call


def of_a_robust_rule(num_clients):
    parts = [replace(part, estimate=None, by_layer=(), is_exact=True) for part in explained(num_clients, None).clients]
    return replace(explained(num_clients, None), layers=(), clients=tuple(parts))


def widths(bars):
    return [pytest.approx(bar.get_width()) for bar in bars]


def test_the_picture_of_an_image(draw):
    given, classes, clients, layers, _ = draw(IMAGE, explained(4))
    assert given.images[0].get_array().shape == (8, 8, 3)
    assert widths(classes.patches) == [70, 20, 10]
    assert classes.get_yticklabels()[0].get_text() == "1 (d$o$gs)"
    contributions, lead = clients.containers
    assert widths(contributions) == [1, 1 / 2, 1 / 3, 1 / 4]
    assert widths(lead) == [-1, -1 / 2, -1 / 3, -1 / 4]
    exact = next(line for line in clients.lines if line.get_marker() == "D")
    assert list(exact.get_xdata()) == pytest.approx([2, 1, 2 / 3, 5, 5 / 2, 5 / 3])
    assert [tick.get_text() for tick in clients.get_yticklabels()][1] == "client 1, holds 1"
    assert clients.get_title() == "the round's 4 clients; 50.0% hold the class"
    assert layers.images[0].get_array()[0].tolist() == pytest.approx([1 / 4, 3 / 4, 0])
    assert [tick.get_text() for tick in layers.get_xticklabels()] == ["0", "1", "head"]


def test_the_picture_of_a_text_and_many_clients(draw):
    given, _, clients, layers, _ = draw(TEXT, explained(40, against=None))
    assert given.texts[0].get_text().endswith("…")
    assert len(clients.containers) == 1
    assert len(clients.get_yticks()) == len(layers.images[0].get_array()) == 15
    assert clients.get_title() == "the round's 40 clients, the first 15; 50.0% hold the class"


@pytest.mark.parametrize(
    ("num_clients", "checked", "words"),
    [(3, 3, ""), (4, 3, " (3 of 4)"), (2, 0, None), (1, 1, ""), (40, 20, " (20 of 40)")],
)
def test_the_picture_says_of_how_many_clients_the_exact_effect_is(draw, num_clients, checked, words):
    _, _, clients, *_ = draw(IMAGE, explained(num_clients, checked=checked))
    labels = [line.get_label() for line in clients.lines if line.get_marker() == "D"]
    assert labels == ([] if words is None else [f"exact effect of leaving the client out{words}"])
    shown = min(checked, 15)
    assert sum(len(line.get_xdata()) for line in clients.lines if line.get_marker() == "D") == 2 * shown


def test_the_tables():
    out = io.StringIO()
    show(TerminalConsole(file=out, width=100), ExplainedInput(TEXT, explained(14), Method(), NAMES))
    text = out.getvalue()
    assert "predicted 1 (d$o$gs) with probability 70.0%; next is 0 ([red]cats[/red]) with 20.0%" in text
    assert "7 of the round's 14 clients hold that class (50.0%)" in text
    assert "ahead of 2 by 2.500 logits" in text
    assert "and 2 more clients" in text
    rows = {line.split()[0]: line.split()[1:] for line in reversed(text.splitlines()) if line.strip()}  # the first
    assert rows["2"] == ["1", "+0.500", "+1.000", "0.500", "7.1%", "1", "-0.500"]
    assert "carried by client 0, by its contribution, and its exact effect is +2.000" in text
    assert rows["body.1"] == ["+0.750", "+0.375", "+0.250", "+0.188", "+0.150"]
    assert rows["sum"] == ["+1.000", "+0.500", "+0.333", "+0.250", "+0.200"]
    assert ["0", "+2.000", "25.0%", "+5.000", "0", "([red]cats[/red])"] in [line.split() for line in text.splitlines()]


def against_the_order():
    """Of six clients, the second's exact effect is largest, and three were left out."""
    found = explained(6)
    first, second, *rest = found.clients
    larger = replace(second, removal=replace(second.removal, effect=9.0))
    return replace(found, clients=(first, larger, *rest))


@pytest.mark.parametrize("unlike", [None, False, True])
def test_an_image_unlike_the_servers_is_said_to_be(unlike):
    out = io.StringIO()
    answer = ExplainedInput(replace(IMAGE, is_unlike=unlike), explained(3), Method(), NAMES)
    show(TerminalConsole(file=out, width=80), answer)
    assert ("this image is unlike any of the server's" in out.getvalue()) == (unlike is True)
    assert as_json(answer)["input"]["unlike"] is unlike


def test_an_exact_effect_against_the_order_is_marked_and_said(draw):
    found = ExplainedInput(IMAGE, against_the_order(), Method(), NAMES)
    words = "by exact effects client 1 (+9.000) comes before client 0 (+2.000)"
    out = io.StringIO()
    show(TerminalConsole(file=out, width=100), found)
    assert words in flat(out.getvalue())
    assert [line.split()[:2] for line in out.getvalue().splitlines() if " * " in line[:60]] == [["1", "0"]]
    assert as_json(found)["contradicted"] == ["0"]
    clients = draw(IMAGE, found.found)[2]
    assert words in clients.get_xlabel().replace("\n", " ")
    marked = [line for line in clients.lines if line.get_markerfacecolor() == "white"]
    assert [list(line.get_xdata()) for line in marked] == [[2.0]]


def test_nobody_is_said_by_the_tables_and_the_json():
    whole = explained(3)
    against = [replace(part, removal=replace(part.removal, effect=-1.0 - k)) for k, part in enumerate(whole.clients)]
    said = ExplainedInput(TEXT, replace(whole, clients=tuple(against)), Method(), NAMES)
    out = io.StringIO()
    show(TerminalConsole(file=out, width=100), said)
    assert "carried by nobody: without any one client the model is as sure, by exact removals" in flat(out.getvalue())
    assert as_json(said)["responsible"] is None
    turned = replace(whole, clients=whole.clients[::-1])  # as exact effects may order them: no score contradicts that
    show(TerminalConsole(file=out, width=100), ExplainedInput(TEXT, turned, Method(), NAMES))
    assert out.getvalue().count(" score ") == 1


def test_json_holds_everything():
    found = as_json(ExplainedInput(IMAGE, explained(14), Method(), NAMES))
    assert found["against"] == {"class": 2, "name": "2", "probability": 0.1, "lead": 2.5}
    assert found["layers"] == ["body.0", "body.1", "head"]
    assert [client["rank"] for client in found["clients"]] == list(range(1, 15))
    assert found["clients"][0]["removal"] == {
        "effect": 2.0,
        "against_effect": 5.0,
        "predicted": 0,
        "probability": 0.25,
    }
    assert found["clients"][3]["removal"] is None


def test_parts_of_networks():
    names = [name for name, layer in torchvision.models.resnet18().named_modules() if not list(layer.children())]
    blocks = [f"layer{i}.{j}" for i in range(1, 5) for j in range(2)]
    layers = [name for name in names if name not in ("relu", "maxpool", "avgpool")]
    parts = group_layers(layers)
    assert list(parts) == ["conv1", "bn1", *blocks, "fc"]
    assert sorted(number for numbers in parts.values() for number in numbers) == list(range(len(layers)))
    assert group_layers([""]) == {"the model": [0]}
    assert list(group_layers(["a.0", "a.1", "b"], most=2)) == ["a", "b"]
    assert len(group_layers([str(i) for i in range(30)])) == 30  # no coarser division than the first part of the name


def test_without_layers_there_is_no_panel_and_no_table_of_them(draw):
    _, _, clients = draw(IMAGE, of_a_robust_rule(3))
    assert widths(clients.containers[0].patches) == [1, 1 / 2, 1 / 3]
    console = TerminalConsole(file=io.StringIO(), width=80)
    show(console, ExplainedInput(IMAGE, of_a_robust_rule(3), Method(), NAMES))
    said = console.file.getvalue()
    assert "by layer" not in said
    assert "no layers: a robust rule made this model" in said
    answer = as_json(ExplainedInput(IMAGE, of_a_robust_rule(3), Method(), NAMES))
    assert (answer["layers"], answer["clients"][0]["estimate"], answer["clients"][0]["by_layer"]) == ([], None, ())


def lines_of(found, width=80):
    console = TerminalConsole(file=io.StringIO(), width=width)
    show(console, ExplainedInput(IMAGE, found, Method(), NAMES))
    return console.file.getvalue().splitlines()


def exactly(found, count):
    """The explanation with the contributions of the first ``count`` clients exact."""
    first = [
        replace(c, contribution=c.removal.effect, against=c.removal.against_effect, is_exact=True)
        for c in found.clients[:count]
    ]
    return replace(found, clients=(*first, *found.clients[count:]))


def test_an_exact_contribution_is_one_column_and_no_sum_of_layers():
    lines = lines_of(exactly(explained(3), 3), width=100)
    (heading,) = [line for line in lines if " weight " in line]
    assert heading.split() == ["client", "exact", "contribution", "score", "weight", "holds", "against", "2"]
    row = next(line for line in lines if line.split()[:2] == ["2", "1"])
    assert row.split()[2:4] == ["+1.000", "0.500"]
    assert row.split()[-1] == "+2.500"  # how far the lead falls, as in the table of removals
    place = next(n for n, line in enumerate(lines) if line.startswith("sum"))
    assert lines[place + 1] == "the layers add up to the first-order estimate, and not to the exact contributions above"


def test_where_some_contributions_are_exact_both_columns_stand_and_it_is_said():
    lines = lines_of(exactly(explained(4), 2), width=100)
    (heading,) = [line for line in lines if " weight " in line]
    assert heading.split()[1:4] == ["contribution", "exact", "effect"]
    said = "the layers add up to the first-order estimate, and not to the contributions above that are exact"
    assert said in lines
    assert not any("the layers add up" in line for line in lines_of(explained(4)))
