"""What commands print: no line ends in blanks, whatever is printed and wherever."""

import ast
import io
from pathlib import Path

import pytest
from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

import tracefl
from tracefl.report.console import TerminalConsole, say, table_console


def table():
    made = Table(title="who", title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    made.add_column("client")
    made.add_column("what it was taught", style="bold")
    made.add_row("3", "4 is 9")
    made.add_row("[b]17[/b]", "")
    return made


PRINTED = [table(), Text("word " * 60, style="dim"), "word " * 60, "", "a  "]


@pytest.mark.parametrize("is_terminal", [False, True])
@pytest.mark.parametrize("printed", PRINTED, ids=["table", "styled", "wrapped", "empty", "blanks"])
def test_lines_are_those_of_rich_without_the_blanks_at_their_ends(monkeypatch, printed, is_terminal):
    monkeypatch.setenv("FORCE_COLOR", "1" if is_terminal else "")
    ours, theirs = io.StringIO(), io.StringIO()
    for console in (TerminalConsole(file=ours, width=80), Console(file=theirs, width=80, markup=False)):
        assert console.is_terminal == is_terminal
        console.print(printed)
    plain = [Text.from_ansi(line).plain for line in ours.getvalue().split("\n")]
    assert plain == [Text.from_ansi(line).plain.rstrip() for line in theirs.getvalue().split("\n")]


def test_lines_above_progress_bars_end_where_their_text_does(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    shown = io.StringIO()
    console = TerminalConsole(file=shown, width=80, color_system=None)
    with Progress(console=console, transient=True) as bars:
        bars.add_task("rounds", total=3)
        say(console, "round 1 of 3  ")
        console.print(table())
    lines = shown.getvalue().split("\n")
    assert any(line.endswith("round 1 of 3") for line in lines)
    assert any(line.endswith("4 is 9") for line in lines)


def test_a_table_in_a_file_has_the_width_that_is_asked_for(monkeypatch, capsys):
    monkeypatch.delenv("COLUMNS", raising=False)
    assert (table_console().width, table_console(150).width) == (100, 150)
    monkeypatch.setenv("COLUMNS", "70")
    assert table_console(150).width == 70


def test_nothing_is_printed_past_it():
    """Other consoles of rich are for stderr, and for a spinner."""
    root = Path(tracefl.__file__).parent
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Console":
                to_stderr = [keyword.arg for keyword in node.keywords] == ["stderr"]
                spinner = path.name == "demo.py"
                assert to_stderr or spinner, f"{path}:{node.lineno}: print with TerminalConsole or table_console"
