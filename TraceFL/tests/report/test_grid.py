"""A table as LaTeX."""

from tracefl.report.grid import Grid


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
