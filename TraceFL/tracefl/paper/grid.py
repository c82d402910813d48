"""A table of texts, to be shown in the terminal, as Markdown or as LaTeX."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.table import Table

_LEAST_LABEL = 30  # characters that the first column keeps, where its texts are as long
_MOST_OF_A_COLUMN = 7  # columns of a table that fits into one of a paper's two
_LATEX = {
    **{character: rf"\{character}" for character in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"±": r"$\pm$", ">": r"$>$", "<": r"$<$"},
}


@dataclass(frozen=True)
class Grid:
    """A table's texts.

    Attributes:
        headings: One per column. The first column is text, the others are numbers.
        rows: One text per column.
        caption: Text below the table.
        fixed: Number of first columns that are repeated in every part where the terminal is too narrow for all.
    """

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str
    fixed: int = 1

    def print(self, console: Console) -> None:
        """Print the table, in parts where the terminal is too narrow for it, and the caption."""
        for columns in self.parts(console.width):
            table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
            for column in columns:
                if column == 0:
                    table.add_column(self.headings[0], overflow="fold")
                else:
                    table.add_column("\n".join(_words(self.headings[column])), justify="right", no_wrap=True)
            for row in self.rows:
                table.add_row(*(row[column] for column in columns))
            console.print(table)
        console.print(self.caption, style="dim italic", highlight=False)

    def markdown(self) -> str:
        """Return the table as Markdown, with the caption below."""
        lines = [self.headings, ["---", *["---:"] * (len(self.headings) - 1)], *self.rows]
        cells = [[cell.replace("|", r"\|") for cell in line] for line in lines]
        return "".join(f"| {' | '.join(line)} |\n" for line in cells) + f"\n{self.caption}\n"

    def latex(self, title: str, label: str) -> str:
        """Return the table as LaTeX (booktabs), one text column wide, or two where it has many columns.

        Args:
            title: Title of the caption, before ``self.caption``.
            label: Label for references, as ``tab:label``.
        """
        wide = "*" if len(self.headings) > _MOST_OF_A_COLUMN else ""
        lines = [[_latex_heading(heading) for heading in self.headings], *self.rows]
        cells = [" & ".join(cell if n == 0 else _latex(cell) for cell in line) for n, line in enumerate(lines)]
        return "\n".join(
            (
                rf"\begin{{table{wide}}}[t]  % \usepackage{{booktabs}}",
                r"\centering\footnotesize\setlength{\tabcolsep}{3pt}",
                rf"\caption{{{_latex(f'{title}. {self.caption}')}}}\label{{tab:{label}}}",
                rf"\begin{{tabular}}{{l{'r' * (len(self.headings) - 1)}}}",
                r"\toprule",
                rf"{cells[0]} \\",
                r"\midrule",
                *(rf"{row} \\" for row in cells[1:]),
                r"\bottomrule",
                r"\end{tabular}",
                rf"\end{{table{wide}}}",
                "",
            )
        )

    def parts(self, width: int) -> list[list[int]]:
        """Return the columns of each part for a terminal of ``width`` characters; the fixed ones are in every part."""
        fixed = list(range(self.fixed))
        least = used = 1 + sum(self._width(column) for column in fixed)
        parts = [list(fixed)]
        for column in range(self.fixed, len(self.headings)):
            if used + self._width(column) > width and len(parts[-1]) > self.fixed:
                parts.append(list(fixed))
                used = least
            parts[-1].append(column)
            used += self._width(column)
        return parts

    def _width(self, column: int) -> int:
        """Return a column's width in characters, with the space between columns."""
        longest = max((len(row[column]) for row in self.rows), default=0)
        if column == 0:
            longest = min(longest, _LEAST_LABEL)
        return max(longest, *(len(word) for word in _words(self.headings[column]))) + 2


def _words(heading: str) -> list[str]:
    """Return what stands on a line of its own in a heading."""
    return heading.replace("_", " ").split()


def _latex(text: str) -> str:
    """Return text with LaTeX's special characters escaped."""
    return "".join(_LATEX.get(character, character) for character in text)


def _latex_heading(heading: str) -> str:
    """Return a heading, one word per line."""
    words = [_latex(word) for word in _words(heading)]
    return words[0] if len(words) == 1 else r"\shortstack{" + r" \\ ".join(words) + "}"
