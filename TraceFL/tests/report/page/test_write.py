"""The page as text, the command that writes it, and what happens where it cannot be written."""

import json
import logging
import re
import shlex
import shutil
from html.parser import HTMLParser

import pytest
from hydra.core.global_hydra import GlobalHydra

from tests.helpers.commands import call_main
from tests.helpers.made_page import FAULT, NAMES, make_run, result, suspects_row, traced_input
from tracefl.conf.run_names import find_run
from tracefl.records.checksums import seal, write_checksums
from tracefl.report.__main__ import main
from tracefl.report.page import write_at_end, write_page

ROUNDS = (result(1, [traced_input(0)]), result(2))


class Page(HTMLParser):
    """The elements of a page, its text, and the text of its scripts."""

    def __init__(self, path):
        super().__init__()
        self.elements, self.words, self.scripts = [], "", []
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self.words += " "
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data):
        if self.elements and self.elements[-1][0] == "script":
            self.scripts[-1] += data
        else:
            self.words += data


@pytest.fixture
def call(monkeypatch, capsys):
    return lambda *arguments: call_main(monkeypatch, capsys, main, "report", *arguments)


def test_names_are_escaped_everywhere(tmp_path):
    page = Page(write_page(make_run(tmp_path, ROUNDS)))
    assert [tag for tag, _ in page.elements].count("script") == 2  # the data and the page's own
    assert NAMES[1] in page.words
    assert "</script" not in page.scripts[0]
    assert json.loads(page.scripts[0])["names"] == list(NAMES)
    assert [a for tag, a in page.elements if tag == "th" and a.get("title") == f"class 1: {NAMES[1]}"]


def test_nothing_is_fetched(tmp_path):
    path = write_page(make_run(tmp_path, ROUNDS))
    attributes = [(name, value) for _, found in Page(path).elements for name, value in found.items()]
    links = [value for name, value in attributes if name in ("href", "src", "action", "data", "poster", "srcset")]
    assert all(link.startswith(("#", "data:")) for link in links)
    assert not re.search(r"@import|url\(", path.read_text())
    assert any("default-src 'none'" in str(value) for _, value in attributes)


@pytest.mark.parametrize(
    ("state", "error", "words"),
    [
        ("done", None, "complete, 2 of 2 rounds; 40s"),
        ("stopped", None, "stopped after 2 of 2 rounds; the same command with resume=true goes on; 40s"),
        ("failed", "no client answered", "failed after 2 of 2 rounds: no client answered; 40s"),
    ],
)
def test_how_the_run_ended(tmp_path, state, error, words):
    page = Page(write_page(make_run(tmp_path, ROUNDS, state=state, error=error)))
    assert words in page.words
    assert ("torch 2.15.0" in page.words) == (state == "done")
    assert ("not recorded: they are written when a run is complete" in page.words) == (state != "done")


def test_localization_never_stands_without_its_chance(tmp_path):
    words = " ".join(Page(write_page(make_run(tmp_path, ROUNDS))).words.split())
    assert "100.0% localization accuracy, mean of the rounds; chance 33.3%" in words
    assert "localization accuracy (chance)" in words
    assert "100.0% (33.3%)" in words
    assert "- (-)" in words  # round 2 traced nothing
    assert "localization accuracy: 1 of 2 rounds have no value." in words


def test_a_fault_and_its_rules(tmp_path):
    krum = suspects_row(1) | {"rule": "krum", "seconds": None, "localization_accuracy": None, "note": "too few clients"}
    rounds = [result(1, [traced_input(0, 1, 0, expected=("2",))], [suspects_row(1), krum])]
    run = make_run(tmp_path, rounds, "fault=label_flip", "fault.clients=[2]", "baselines=fast", fault=FAULT)
    words = " ".join(Page(write_page(run)).words.split())
    assert "label_flip 100 %, 1 of 5: client 2." in words
    assert "krum too few clients" in words
    assert "● is faulty, in the round" in words
    assert "tracefl run fault=label_flip 'fault.clients=[2]' baselines=fast" in words


def test_nobody_is_called_faulty_where_nobody_is_known_to_be(tmp_path):
    rounds = [result(1, [traced_input(0, 1, 0, expected=())])]
    path = write_page(make_run(tmp_path, rounds, "provenance.inputs=mispredicted"))
    words = " ".join(Page(path).words.split())
    assert "is faulty" not in words
    assert 'class="key">●' not in path.read_text()  # the legend
    assert "Localization accuracy: not measured, because no client is known to be faulty." in words


@pytest.mark.parametrize(
    ("place", "log_dir", "named"),
    [
        ("logs/exp", "logs", "exp/"),
        ("results/exp", "{here}/results", "exp/"),
        ("runs/exp", "runs", "runs/exp/"),
        ("runs/exp", "{here}/runs", "{here}/runs/exp/"),
        ("moved", "runs", "{here}/moved/"),
    ],
)
def test_commands_name_the_run_so_that_it_is_found(tmp_path, monkeypatch, place, log_dir, named):
    monkeypatch.chdir(tmp_path)
    log_dir, named = (text.format(here=tmp_path) for text in (log_dir, named))
    (tmp_path / place).mkdir(parents=True)
    run = make_run(tmp_path / place, ROUNDS, f"log_dir={log_dir}", "exp_key=exp")
    page = Page(write_page(run))
    word = shlex.quote(named + run.name)
    assert json.loads(page.scripts[0])["run"] == word
    assert f"This page again: tracefl report {word}" in " ".join(page.words.split())
    assert find_run(named + run.name).resolve() == run


def test_a_run_made_from_python_has_no_command(tmp_path):
    run = make_run(tmp_path, ROUNDS)
    (run / "command.txt").unlink()
    seal(run)
    words = " ".join(Page(write_page(run)).words.split())
    assert "Made from Python, not by a command" in words
    assert "tracefl run" not in words


def test_contributions_that_are_the_exact_effects_are_shown_once(tmp_path):
    both = ("contribution to correct ones", "exact effect on correct ones", "largest exact effect")
    (tmp_path / "estimated").mkdir()
    words = " ".join(Page(write_page(make_run(tmp_path / "estimated", ROUNDS))).words.split())
    assert all(each in words for each in both)
    assert "exact contribution" not in words
    effects = (("0", 0.5), ("2", -0.25), ("3", -0.5))
    exact = traced_input(0, contributions=effects, effects=effects, verified=("0", "2", "3"))
    words = " ".join(Page(write_page(make_run(tmp_path, [result(1, [exact])]))).words.split())
    assert "exact contribution to correct ones" in words
    assert not any(each in words for each in both[1:])
    assert "that this is the exact effect of its removal" in words


def test_where_the_time_went(tmp_path):
    words = " ".join(Page(write_page(make_run(tmp_path, ROUNDS))).words.split())
    assert "training on the clients, and averaging 4.0 2.00 10.0%" in words  # of 40 s
    assert "the rest: starting workers, writing, unfinished rounds 34.0 17.00 85.0%" in words
    assert "Provenance took 500.0 ms an input." in words  # 0.25 s in each of two rounds, one input


def test_the_command(call, tmp_path):
    run = make_run(tmp_path, ROUNDS)
    assert call(run) == (0, f"report: {run / 'report.html'}\n", "")
    assert call(run, f"html={tmp_path / 'page.html'}")[0] == 0
    told = {"run": str(run), "html": str(tmp_path / "page.html"), "lacking": {}}
    assert call(run, f"html={tmp_path / 'page.html'}", "--json") == (0, json.dumps(told) + "\n", "")
    assert (tmp_path / "page.html").read_bytes() == (run / "report.html").read_bytes()


def test_bad_input(call, tmp_path):
    run = make_run(tmp_path, [], state="stopped")
    (tmp_path / "empty").mkdir()
    for arguments, words in (
        ((tmp_path / "empty",), "is no run's folder"),
        ((run,), "has no recorded round"),
        ((run, "round=3"), "unknown argument 'round=3'; see tracefl report --help"),
        ((run, "html=/no/such/folder/x.html"), "give a file in a folder that exists"),
        ((run, f"html={tmp_path}"), "give a file in a folder that exists"),
    ):
        status, out, err = call(*arguments)
        assert (status, out, len(err.splitlines())) == (2, "", 1)
        assert words in err
    assert not (run / "report.html").exists()


def change(folder):
    path = folder / "round.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"row": content["row"] | {"global_accuracy": 0.95}}))


def forget_a_column(folder):
    path = folder / "round.json"
    path.write_text(path.read_text().replace('"global_loss"', '"loss"'))
    write_checksums(folder)
    seal(folder.parents[1])


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (change, "round.json is damaged: its checksum is not the one in SHA256SUMS"),
        (forget_a_column, "round.json is damaged or of another version of tracefl: it lacks row.global_loss"),
        (lambda folder: (folder / "round.json").unlink(), "round.json is missing"),
        (lambda folder: (folder / "SHA256SUMS").unlink(), "has no SHA256SUMS"),
        (shutil.rmtree, "its folder is missing"),
    ],
)
def test_a_page_of_the_rounds_that_can_be_read_says_which_it_lacks(call, tmp_path, number, damage, reason):
    run = make_run(tmp_path, [result(n, [traced_input(0)]) for n in (1, 2, 3)])
    damage(run / "rounds" / f"{number:04d}")
    status, out, err = call(run)
    assert (status, out, len(err.splitlines())) == (2, f"report: {run / 'report.html'}\n", 1)
    assert err.startswith(f"tracefl: {run / 'report.html'} lacks round {number}: ")
    assert reason in err
    words = " ".join(Page(run / "report.html").words.split())
    before, _, after = words.partition("What was found")
    assert "This page lacks 1 of 3 recorded rounds" in before
    assert f"Round {number}: " in before
    assert reason in before
    assert f"After round {2 if number == 3 else 3} the model is right" in after
    is_there = (run / "rounds" / f"{number:04d}" / "round.json").exists()
    state = "complete, 3 of 3 rounds" if is_there else f"failed after 3 of 3 rounds: round {number} is missing in"
    assert state in words
    status, out, _ = call(run, "--json")
    assert (status, list(json.loads(out)["lacking"])) == (2, [str(number)])


def test_several_rounds_that_a_page_lacks_are_named(call, tmp_path):
    run = make_run(tmp_path, [result(n) for n in range(1, 7)])
    for number in (2, 4, 5):
        change(run / "rounds" / f"{number:04d}")
    assert f"lacks rounds 2, 4 to 5; the first: {run / 'rounds' / '0002'}" in call(run)[2]
    elements = Page(run / "report.html").words
    assert [n for n in range(1, 7) if f"Round {n}" in elements.split("What was found")[0]] == [2, 4, 5]


def test_a_run_without_a_round_that_can_be_read_has_no_page(call, tmp_path):
    run = make_run(tmp_path, ROUNDS)
    for number in (1, 2):
        change(run / "rounds" / f"{number:04d}")
    status, out, err = call(run)
    assert (status, out, len(err.splitlines())) == (2, "", 1)
    assert "has no round that can be read: rounds 1 to 2; the first: " in err
    assert not (run / "report.html").exists()


def test_at_its_end_a_run_says_which_round_its_page_lacks(tmp_path, caplog):
    run = make_run(tmp_path, ROUNDS, state="failed", error="a round is damaged")
    change(run / "rounds" / "0001")
    with caplog.at_level(logging.WARNING):
        write_at_end(run, "cpu")
    (record,) = caplog.records
    assert "report.html lacks round 1: " in record.getMessage()
    assert "This page lacks 1 of 2 recorded rounds" in Page(run / "report.html").words


def test_a_damaged_run_is_named(call, tmp_path):
    run = make_run(tmp_path, ROUNDS)
    (run / "results.json").write_text("{}")
    assert "results.json is damaged" in call(run)[2]
    (run / "results.json").unlink()
    (run / "server.safetensors").write_bytes(b"x")
    assert "server.safetensors" in call(run)[2]


def test_at_its_end_a_run_says_how_it_ended_and_on_what(tmp_path):
    run = make_run(tmp_path, ROUNDS, state="failed", error="no client answered")
    (run / ".claim").write_text("{}")  # it still holds its folder
    write_at_end(run, "cpu")
    words = Page(run / "report.html").words
    assert "failed after 2 of 2 rounds: no client answered" in words
    assert "python 3" in words


def test_a_report_that_cannot_be_written_is_named_and_loses_nothing(tmp_path, caplog):
    run = make_run(tmp_path, ROUNDS)
    (run / "report.html").mkdir()  # so that no file can take its place
    with caplog.at_level(logging.WARNING):
        write_at_end(run, "cpu")
    (record,) = caplog.records
    assert "report.html was not written (IsADirectoryError: " in record.getMessage()
    assert f"to try again: tracefl report {run}" in record.getMessage()


def test_hydra_is_left_as_it_is(tmp_path):
    GlobalHydra.instance().clear()
    write_page(make_run(tmp_path, ROUNDS))
    assert not GlobalHydra.instance().is_initialized()
