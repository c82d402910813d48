"""Names and words from data are text wherever they are shown: terminal, tables, pages, figures, logs, errors."""

import csv
import io
import json
import logging
import math

import pytest
from rich.control import strip_control_codes
from rich.table import Table
from rich.text import Text

from tests.helpers.finished import finish
from tests.helpers.made_page import COUNTS, make_run, result, traced_input
from tracefl.errors import RecordError, one_line, plain
from tracefl.ledger import main as ledger
from tracefl.records.checksums import seal
from tracefl.records.log import RunLog
from tracefl.records.tables import to_csv
from tracefl.report.console import TerminalConsole
from tracefl.report.page import write_page
from tracefl.report.terminal import say, terminal_lines

OBEYED = "\x1b[31mred\x1b[0m\x07\x9b2J\r‮gnp.exe‬\u2066\ud800"
SHOWN = r"\x1b[31mred\x1b[0m\x07\x9b2J\x0d\u202egnp.exe\u202c\u2066\ud800"
FORMULAS = ("=1+1", "+SUM(A1)", "-2+3", "@x", "\tx", "\rx", "=cmd|' /C calc'!A0", "\uff1d1+1", '=HYPERLINK("http://x")')
NUMBERS = ("-0.5", "+1", "-1e-5", "-inf")


def shown_by(console_call):
    file = io.StringIO()
    console_call(TerminalConsole(file=file, width=200))
    return file.getvalue()


def test_plain_text_is_the_same_and_says_what_it_does_not_do():
    assert plain(OBEYED) == SHOWN
    for harmless in ("ant", "naïve 猫 🐜 a‍b", "[red]", "<b>", "$x$", ""):
        assert plain(harmless) == harmless
    assert plain("two\nlines\t!") == r"two\x0alines\x09!"
    assert plain("two\nlines\t!", keep="\n\t") == "two\nlines\t!"
    assert one_line(RecordError(f"a {OBEYED}\n b")) == f"a {SHOWN} b".replace(r"\x0d", " ")


@pytest.mark.parametrize("name", [OBEYED, "[red]x[/red]", "[/nothing]", ":smile:", "[link=http://x]y[/link]"])
def test_a_terminal_shows_a_name_and_obeys_nothing_of_it(name):
    table = Table(title=name)
    table.add_column(name)
    table.add_row(name)
    table.add_row(Text(name))
    text = shown_by(lambda console: console.print(table))
    text += shown_by(lambda console: say(console, name))

    def log(console):
        with terminal_lines(console):
            logging.getLogger("tracefl.test").warning("of %s", name)

    text += shown_by(log)
    shown = plain(strip_control_codes(name))  # rich leaves some out itself
    assert text.count(shown[:18]) == 6  # a cell ends where the name would, were its control characters not written out
    assert text.count(shown) >= 3
    assert not [c for c in text if not c.isprintable() and c != "\n"]


@pytest.mark.parametrize("text", FORMULAS)
def test_a_cell_is_no_formula(text):
    (_, (cell,)) = csv.reader(io.StringIO(to_csv(["a"], [{"a": text}])))
    assert cell == f"'{plain(text, keep=chr(9))}"


@pytest.mark.parametrize("value", [*NUMBERS, -0.5, -1, -math.inf, None, True, "3:-0.75 4:0.25", "a=b", "it's"])
def test_other_cells_stay(value):
    assert to_csv(["a"], [{"a": value}]) == f"a\n{'' if value is None else value}\n".replace("a\n\n", 'a\n""\n')


def test_a_run_whose_names_are_attacks_is_shown(tmp_path, monkeypatch, capsys):
    """Its page, its ledger's table and figure, and its log."""
    names = ["=1+1", "<img src=x onerror=alert(1)>", f"‮{OBEYED[:12]}", "$\\frac$[/red]"]
    contributions = {"contributions": (("0", 0.5), ("2", 0.2), ("3", -0.7))}
    rounds = [result(1, [traced_input(n, label=n, **contributions) for n in range(4)], dropped={"1": OBEYED[:-1]})]
    run = make_run(tmp_path, rounds, names=names, counts=COUNTS)
    page = write_page(run).read_text()
    assert "<img src=x" not in page
    assert not {"‮", "\x1b", "\x07"} & set(page)
    monkeypatch.setattr("sys.argv", ["ledger", str(run)])
    ledger()
    assert not {"‮", "\x1b", "\x07"} & set("".join(capsys.readouterr()))
    cells = [cell for row in csv.reader((run / "ledger.csv").open(newline="")) for cell in row]
    assert "'=1+1" in cells
    assert not [cell for cell in cells if cell[:1] in "=@" and cell]
    assert not {"‮", "\x1b", "\x07"} & set((run / "ledger.csv").read_text())


def test_a_log_is_text(tmp_path):
    with RunLog() as log:
        log.open(tmp_path / "run.log")
        logging.getLogger("tracefl.test").error("client 3: %s", OBEYED)
    assert SHOWN in (tmp_path / "run.log").read_text()


def test_json_keeps_what_a_name_is_in_ascii(tmp_path, monkeypatch, capsys):
    run = make_run(tmp_path, [result(1, [traced_input(0)])], names=["\x1b[31m", "b", "c", "d"])
    finish(run, 1)
    seal(run)
    monkeypatch.setattr("sys.argv", ["ledger", str(run), "--json"])
    ledger()
    out = capsys.readouterr().out
    assert out.isascii()
    assert out.isprintable() or "\x1b" not in out
    assert json.loads(out)["run"] == str(run)
