"""A table before it is drawn: for the terminal, or as Markdown."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.table import Table


@dataclass(frozen=True)
class Grid:
    """Headings, rows of as many texts, and what has to be said below. The first column is text, the others numbers."""

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str

    def table(self) -> Table:
        """Return it for the terminal; headings break at their underscores."""
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), caption=self.caption, caption_justify="left")
        for number, heading in enumerate(self.headings):
            words = heading.replace("_", "\n").replace(" ", "\n")
            table.add_column(words, justify="right" if number else "left", overflow="fold")
        for row in self.rows:
            table.add_row(*row)
        return table

    def markdown(self) -> str:
        """Return it as a Markdown table, with the caption below."""
        lines = [self.headings, ["---", *["---:"] * (len(self.headings) - 1)], *self.rows]
        cells = [[cell.replace("|", r"\|") for cell in line] for line in lines]
        return "".join(f"| {' | '.join(line)} |\n" for line in cells) + f"\n{self.caption}\n"
