"""Where commands print: lines that end where their text does, tables that fit, answers as JSON."""

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderHook, RenderResult
from rich.control import Control
from rich.segment import Segment

from tracefl.common.streams import discard_output
from tracefl.common.words import wrapped
from tracefl.errors import plain

WIDE = 150
"""Columns, in a file, of a table whose cells hold runs' folders."""


class TerminalConsole(Console):
    """A terminal that may go away, as in ``| head``: the run continues, and run.log has its output.

    Whatever is printed is text: it has no markup, and what a terminal would obey is written out, wherever it is from.
    In a notebook plain lines, as in a file. No line ends in blanks, which rich fills tables up with.
    """

    def __init__(self, **options: Any) -> None:
        # A notebook's kernel says FORCE_COLOR, but its page shows a terminal's bars as one line after another.
        in_a_page = False if "ipykernel" in sys.modules else None
        super().__init__(markup=False, emoji=False, force_jupyter=False, force_terminal=in_a_page, **options)
        self.push_render_hook(_BlanksStripped())

    def render(self, renderable: Any, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render something, all of whose text is ``plain``."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=plain(segment.text, keep="\n"))

    def on_broken_pipe(self) -> None:
        """Print nothing more."""
        self.quiet = True
        discard_output()


class _BlanksStripped(RenderHook):
    """Takes the blanks from the ends of the lines that are printed."""

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        """Return what is printed; what moves the cursor is left as it is."""
        return [each if isinstance(each, Control) else _Stripped(each) for each in renderables]


class _Stripped:
    def __init__(self, printed: ConsoleRenderable) -> None:
        self._printed = printed

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for line in Segment.split_lines(console.render(self._printed, options)):
            while line and not line[-1].control and not line[-1].text.rstrip(" "):
                line.pop()
            if line and not line[-1].control:
                line[-1] = line[-1]._replace(text=line[-1].text.rstrip(" "))
            yield from line
            yield Segment.line()


def table_console(columns: int = 100, *, stderr: bool = False) -> Console:
    """Return a console for tables: as wide as the terminal or as COLUMNS says, else ``columns``."""
    fixed = None if sys.stdout.isatty() or "COLUMNS" in os.environ else columns
    return TerminalConsole(width=fixed, stderr=stderr)


def say_json(found: Mapping[str, Any]) -> None:
    """Print an answer as one line of JSON."""
    sys.stdout.write(json.dumps(found) + "\n")


def say(console: Console, text: str) -> None:
    """Print a line unchanged, neither wrapped nor coloured."""
    console.print(text, soft_wrap=True, highlight=False)


def say_wrapped(console: Console, text: str, indent: str = "") -> None:
    """Print a text in lines that fit the console; its lines but the first begin with ``indent``."""
    say(console, wrapped(text, indent, console.width))


def say_files(console: Console, what: str, files: Sequence[object]) -> None:
    """Print the paths of files: on one line where they fit, else each on its own, since a path cannot be broken."""
    line = f"{what}: {', '.join(map(str, files))}"
    if len(line) <= console.width or len(files) == 1:
        say(console, line)
    else:
        say_wrapped(console, f"{what}:")
        for file in files:
            say(console, f"  {file}")
