"""Tables for the terminal, as Markdown and as LaTeX."""

import io

import pytest
from rich.console import Console

from tracefl.paper.grid import Grid


def test_a_grid_as_markdown():
    grid = Grid(["setting", "provenance"], [["a | b", "1.0"]], "Percent.")
    assert grid.markdown() == "| setting | provenance |\n| --- | ---: |\n| a \\| b | 1.0 |\n\nPercent.\n"


@pytest.mark.parametrize(
    ("width", "parts"),
    [
        # a column takes 4 + 2; one more at the left
        (31, [[0, 1, 2, 3, 4]]),
        (30, [[0, 1, 2, 3], [0, 1, 4]]),
        (25, [[0, 1, 2, 3], [0, 1, 4]]),
        (24, [[0, 1, 2], [0, 1, 3], [0, 1, 4]]),
        (5, [[0, 1, 2], [0, 1, 3], [0, 1, 4]]),
    ],
)
def test_a_wide_table_is_cut_into_parts_that_begin_alike(width, parts):
    grid = Grid(["data", "abcd", "a_bcde", "abcd", "a"], [["1234", "12", "3", "4", "5678"]], "Caption.", fixed=2)
    assert grid.parts(width) == parts


def test_printed_with_its_caption():
    grid = Grid(["setting", "own_logit"], [["mnist", "1.0"]], "In percent.")
    text = io.StringIO()
    grid.print(Console(file=text, width=40))
    lines = [line.split() for line in text.getvalue().splitlines() if line.strip()]
    assert [lines[0], lines[1]] == [["own"], ["setting", "logit"]]
    assert lines[-2:] == [["mnist", "1.0"], ["In", "percent."]]


def test_a_table_of_fixed_columns_alone():
    assert Grid(["setting", "seeds"], [], "", fixed=2).parts(80) == [[0, 1]]


def test_latex_of_a_small_table():
    grid = Grid(["setting", "seeds", "published global"], [["a_b 50 %", "1", "90.0 ± 1.5"]], "chance & more")
    assert grid.latex("Title", "table9").splitlines() == [
        r"\begin{table}[t]  % \usepackage{booktabs}",
        r"\centering\footnotesize\setlength{\tabcolsep}{3pt}",
        r"\caption{Title. chance \& more}\label{tab:table9}",
        r"\begin{tabular}{lrr}",
        r"\toprule",
        r"setting & seeds & \shortstack{published \\ global} \\",
        r"\midrule",
        r"a\_b 50 \% & 1 & 90.0 $\pm$ 1.5 \\",
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]


def test_a_wide_table_takes_both_columns():
    text = Grid([str(n) for n in range(8)], [], "").latex("Title", "wide")
    assert r"\begin{table*}[t]" in text
    assert r"\end{table*}" in text
