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
from tracefl.report.console import TerminalConsole, say, say_files, say_wrapped, table_console


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


def said_in(columns, say_it):
    shown = io.StringIO()
    say_it(TerminalConsole(file=shown, width=columns))
    return shown.getvalue().splitlines()


def test_a_text_is_broken_at_blanks_and_a_path_is_not():
    path = f"logs/{'long' * 30}/a-run"
    shown = said_in(40, lambda console: say_wrapped(console, f"not whole: {path} is one-two {'word ' * 20}", "  "))
    assert [line.strip() for line in shown if path in line] == [path]
    assert all(len(line) <= 40 for line in shown if path not in line)
    assert all(line.startswith("  ") for line in shown[1:])
    assert " ".join(" ".join(shown).split()) == f"not whole: {path} is one-two {'word ' * 20}".strip()


def test_files_are_named_on_one_line_where_they_fit():
    assert said_in(40, lambda console: say_files(console, "written", ["a.csv", Path("a.png")])) == [
        "written: a.csv, a.png"
    ]
    assert said_in(20, lambda console: say_files(console, "written", ["a.csv", "a.png"])) == [
        *("written:", "  a.csv", "  a.png")
    ]
    assert said_in(9, lambda console: say_files(console, "written", ["a/long/path.csv"])) == [
        "written: a/long/path.csv"
    ]


def test_nothing_is_printed_past_it():
    """Other consoles of rich are for stderr, and for a spinner."""
    root = Path(tracefl.__file__).parent
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Console":
                to_stderr = [keyword.arg for keyword in node.keywords] == ["stderr"]
                spinner = path.name == "demo.py"
                assert to_stderr or spinner, f"{path}:{node.lineno}: print with TerminalConsole or table_console"
