"""What the pages tell a reader to type: fenced blocks of commands and Python, and commands within a line.

A comment before a block says how it is checked. Without one it is run as it stands.

- ``<!-- check: compose -->``: what takes hours, or a cluster. Every ``tracefl run`` is composed and its settings are
  checked, a benchmark reads its arguments, a job script lists its runs; nothing is trained.
- ``<!-- check: none, REASON -->``: not at all, and why.
"""

import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

from tests.helpers.configuration import REPOSITORY

PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
_BLOCK = re.compile(
    r"(?:^ *<!-- check: (?P<check>[^\n]*?) -->\n)?^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^ *```$",
    re.MULTILINE | re.DOTALL,
)
_LANGUAGES = {"bash": "bash", "sh": "bash", "console": "bash", "python": "python"}


@dataclass(frozen=True)
class Block:
    """A block of a page.

    Attributes:
        page: Where it stands.
        line: Its first line in the page, from 1.
        language: ``bash`` or ``python``.
        text: What is to be typed.
        check: ``run``, ``compose`` or ``none, REASON``.
    """

    page: Path
    line: int
    language: str
    text: str
    check: str

    def __str__(self):
        return f"{self.page.relative_to(REPOSITORY)}:{self.line}"


def blocks(page):
    """Return the blocks of commands and Python of a page, in order."""
    text = page.read_text()
    return [
        Block(
            page,
            text.count("\n", 0, found.start("text")) + 1,
            _LANGUAGES[found["language"]],
            textwrap.dedent(found["text"]),
            found["check"] or "run",
        )
        for found in _BLOCK.finditer(text)
        if found["language"] in _LANGUAGES
    ]


def commands_in_lines(page):
    """Return the commands that stand within a line, such as in a table, with their lines: ``tracefl trace last``.

    Those with a word in capitals or with dots leave something to the reader, and are not among them.
    """
    text = re.sub(r"^ *```.*?^ *```$", lambda block: "\n" * block[0].count("\n"), page.read_text(), flags=re.M | re.S)
    found = re.finditer(r"`(tracefl \w+ [^`]+)`", text)
    complete = [each for each in found if not re.search(r"\.\.\.|\b[A-Z]{2,}\b", each[1])]
    return [Block(page, text.count("\n", 0, each.start()) + 1, "bash", each[1], "run") for each in complete]


def unfenced_commands(page):
    """Return indented lines that look like commands, which no check would find."""
    text = re.sub(r"^ *```.*?^ *```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"^(?: {4,}|\t)((?:tracefl|python|bash|make|flwr|sbatch|pip) .*)$", text, re.MULTILINE)
