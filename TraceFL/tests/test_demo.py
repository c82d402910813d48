"""The demo, run once as it is; its sentences are checked against the run's own tables, read by themselves."""

import contextlib
import html
import io
import json
import re
import shlex
import sys
from importlib import import_module

import pytest

from tests.helpers.commands import call_main
from tests.helpers.tables import read_csv
from tracefl.__main__ import PROGRAMS
from tracefl.demo import main
from tracefl.report.sentences import program_name


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def demo(place):
    """Run the demo in an empty folder; returns its status, what it printed, and its run's folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setenv("COLUMNS", "1000")
        shown = _called(patch, main, "tracefl")
    (folder,) = (place / "logs" / "demo").iterdir()
    return (*shown, folder)


def _called(patch, command, *arguments):
    """Call a command; returns its status and what it wrote to stdout."""
    patch.setattr(sys, "argv", list(arguments))
    written = io.StringIO()
    with contextlib.redirect_stdout(written):
        try:
            command()
        except SystemExit as end:
            return end.code, written.getvalue()
    return 0, written.getvalue()


def test_it_says_at_once_what_it_does_and_ends_well(demo):
    status, out, folder = demo
    assert status == 0
    assert out.startswith("Five clients train one model on handwritten digits")
    assert (folder / "report.html").exists()
    assert f"report: logs/demo/{folder.name}/report.html" in out


def test_its_sentences_are_what_the_tables_say(demo):
    _, out, folder = demo
    rounds, traced = read_csv(folder / "rounds.csv"), read_csv(folder / "provenance.csv")
    fault = json.loads((folder / "fault.json").read_text())
    (faulty,) = fault["clients"]
    assert fault["flips"] == {"4": 9}
    last = [row for row in traced if row["round"] == rounds[-1]["round"]]
    assert {(row["label"], row["predicted"]) for row in last} == {("4", "9")}
    carried = sum(row["responsible"] == faulty for row in last)
    chance = sum(1 / len(row["ranking"].split()) for row in last)
    said = re.search(r"Client (\d+) was taught that 4 is 9: it carries (\d+) of the (\d+) .*\(chance: ([\d.]+)\)", out)
    assert said.groups()[:3] == (faulty, str(carried), str(len(last)))
    assert float(said.group(4)) == pytest.approx(chance, abs=0.05)
    accuracy = 100 * float(rounds[-1]["global_accuracy"])
    assert f"the model is right on {accuracy:.1f}% of 360 test images" in out
    assert all(sorted(row["verified"].split()) == ["0", "1", "2", "3", "4"] for row in last)
    assert "Each client was left out exactly: contributions are what that changes, so that there is nothing to" in out
    assert "Checked by" not in out


def test_its_page_says_what_the_terminal_says(demo):
    _, out, folder = demo
    page = html.unescape((folder / "report.html").read_text())
    last = next(line for line in out.splitlines() if "it rises from" in line or "rises from" in line)
    assert last in page
    assert page.index(last) < page.index(f"<code>{folder.name}</code>")


def test_the_picture_of_the_demo_is_plain(demo):
    """The story that is told: most mistakes are the faulty client's, and without it the model is better."""
    _, out, folder = demo
    rounds, traced = read_csv(folder / "rounds.csv"), read_csv(folder / "provenance.csv")
    (faulty,) = json.loads((folder / "fault.json").read_text())["clients"]
    last = [row for row in traced if row["round"] == rounds[-1]["round"]]
    assert sum(row["traced_client"] == faulty for row in last) > len(last) / 2 > 5
    before, after, fewer, many = map(
        float,
        re.search(
            r"rises from ([\d.]+)% to ([\d.]+)%, and 4 is taken for 9 in ([\d.]+)% of cases instead of ([\d.]+)%", out
        ).groups(),
    )
    assert before < after
    assert fewer < many / 2


def test_what_to_type_next_works(demo, place, monkeypatch):
    _, out, _ = demo
    monkeypatch.chdir(place)
    commands = out.split("to ask more:\n")[1].split("\n")
    typed = [shlex.split(line.strip().removeprefix(program_name())) for line in commands if line.strip()]
    assert [words[0] for words in typed] == ["trace", "replay", "ledger"]
    for words in typed:
        assert words[1] == "last"
        program = import_module(PROGRAMS[words[0]][0])
        status, said = _called(monkeypatch, program.main, "tracefl", *words[1:])
        assert (status, bool(said)) == (0, True), words


def test_run_again_as_json_it_says_the_same(demo, place, monkeypatch, capfd):
    _, out, folder = demo
    monkeypatch.chdir(place)
    status, said, err = call_main(monkeypatch, capfd, main, "tracefl", "--json")
    assert status == 0, err
    found = json.loads(said)
    assert all(sentence["text"] in out for sentence in found["answer"])
    assert found["replay"]["how"] == "reaggregate"
    assert found["run"] == f"logs/demo/{folder.name}"


def test_it_takes_no_other_argument(monkeypatch, capfd):
    status, _, err = call_main(monkeypatch, capfd, main, "tracefl", "num_rounds=3")
    assert (status, err) == (2, "tracefl: unknown argument 'num_rounds=3'; see tracefl demo --help\n")
    assert "demo" in PROGRAMS


def test_where_nothing_can_be_written_it_says_what_the_demo_takes(tmp_path, monkeypatch, capsys):
    (tmp_path / "logs").write_text("a file")
    monkeypatch.chdir(tmp_path)
    status, _ = _called(monkeypatch, main, "tracefl")
    assert status == 2
    assert capsys.readouterr().err.endswith(
        "(tracefl demo takes no keys: go to another folder, or give them to tracefl run experiment=demo)\n"
    )
