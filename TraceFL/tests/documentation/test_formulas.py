import xml.etree.ElementTree as ElementTree
from pathlib import Path

from documentation.formulas import with_mathml

MATH = "{http://www.w3.org/1998/Math/MathML}"


def test_a_block_becomes_displayed_mathml():
    made = with_mathml("so\n\n```math\np_k T_k\n```\n\nend")
    before, formula, after = made.split("\n\n")
    tree = ElementTree.fromstring(formula)
    assert (before, after, tree.tag, tree.get("display")) == ("so", "end", f"{MATH}math", "block")
    assert [node.text for node in tree.iter(f"{MATH}mi")] == ["p", "k", "T", "k"]


def test_a_formula_in_a_line_stays_in_it():
    made = with_mathml("$`x`$ costs $5 and `$x`")
    assert made.startswith("<span><math")
    assert made.endswith("</span> costs $5 and `$x`")


def test_no_page_keeps_a_formula_that_is_not_closed():
    for page in (Path(__file__).parents[3] / "docs").glob("*.md"):
        made = with_mathml(page.read_text())
        assert "```math" not in made, page
        assert "$`" not in made, page
