"""A traced round in the terminal and as JSON: who carries each prediction, in agreement with the exact effects."""

import io

from rich.console import Console

from tests.helpers.commands import flat
from tests.helpers.made_page import traced_input
from tracefl.questions.trace import RoundTrace
from tracefl.report.trace import as_json, show

LESS = {"effects": (("0", -0.5), ("2", -0.125), ("3", -0.25))}
OTHER = {"effects": (("0", 0.25), ("2", 0.75), ("3", -0.25)), "counterfactual_client": "2"}
TRACE = RoundTrace((traced_input(0), traced_input(1, **LESS), traced_input(12345, **OTHER)))


def test_the_terminal_says_who_carries_and_nobody():
    out = io.StringIO()
    show(Console(file=out, width=80), 3, TRACE)
    assert "…" not in out.getvalue()
    rows = {line.split()[0]: line.split()[3:7] for line in out.getvalue().splitlines() if line.strip()}
    # Carried by, its contribution (the logarithm of its score), its exact effect, and the first by contribution.
    assert rows["0"] == ["0", "-0.511", "-", "0"]
    assert rows["1"] == ["nobody", "-1.204", "-0.125", "0"]
    assert rows["12345"] == ["2", "-1.204", "+0.750", "0"]
    assert "nobody carries 50.0%" in out.getvalue()  # of the two whose exact effects are known


def test_where_every_client_was_left_out_its_contribution_is_one_column():
    out = io.StringIO()
    exact = {"contributions": (("2", 0.75), ("0", 0.25), ("3", -0.25)), "verified": ("0", "2", "3")}
    show(Console(file=out, width=80), 3, RoundTrace((traced_input(12345, **OTHER, **exact),)))
    shown = flat(out.getvalue())
    assert "exact contribution is that client's" in shown
    assert "exact effect" not in shown
    assert "12345 0 0 2 +0.750 0 yes" in shown


def test_who_is_suspected_of_a_confusion_stands_in_the_place_of_the_first():
    suspected = {"suspicions": (("3", 4.25), ("0", -1.0), ("2", -2.0)), "traced_client": "3", "localized": False}
    out = io.StringIO()
    show(Console(file=out, width=80), 3, RoundTrace((traced_input(0), traced_input(1, **suspected))))
    assert "…" not in out.getvalue()
    rows = {line.split()[0]: line.split()[6:9] for line in out.getvalue().splitlines() if line.strip()}
    assert rows["0"] == ["0", "-", "yes"]  # a correct prediction: the highest contribution
    assert rows["1"] == ["3", "4.2", "no"]
    assert "suspected: who pushes the server's inputs of the class most" in flat(out.getvalue())


def test_the_json_says_it_too():
    found = as_json(3, TRACE)
    assert [one["responsible"] for one in found["inputs"]] == ["0", None, "2"]
    assert [one["traced_client"] for one in found["inputs"]] == ["0", "0", "0"]
    assert found["mean"]["nobody_fraction"] == 0.5
