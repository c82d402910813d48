"""Formulas as MathML, which browsers render natively, without scripts, fonts or network.

A hook of mkdocs (``on_page_markdown``). Formulas are written so that GitHub renders them too: a ``math`` fence, or
``$`...`$`` within a line.
"""

import re
from typing import Any

from latex2mathml.converter import convert

_BLOCK = re.compile(r"^```math\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"\$`([^`]+)`\$")


def with_mathml(markdown: str) -> str:
    """Return Markdown with its formulas, written in LaTeX, as MathML."""
    markdown = _BLOCK.sub(lambda found: convert(found.group(1).strip(), display="block"), markdown)
    # The span keeps a paragraph that begins with a formula one paragraph: Markdown takes <math> for a block.
    return _INLINE.sub(lambda found: f"<span>{convert(found.group(1))}</span>", markdown)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Turn a page's formulas into MathML."""
    return with_mathml(markdown)
