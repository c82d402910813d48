"""The one grammar of the programs' arguments."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.commands import call_main
from tracefl import __version__
from tracefl.conf.readers import PICTURES, OneOf, SomeOf, clients, file, fraction, text, whole_number
from tracefl.conf.tool import Grammar, read_arguments, run_tool
from tracefl.errors import ConfigError, RecordError

KEYS = {
    **{"round": whole_number, "text": text, "carry": fraction, "without": clients},
    **{"how": OneOf("reaggregate", "train"), "figure": SomeOf(2, 3), "png": file(*PICTURES)},
}


def read(*arguments, groups=("provenance", "privacy.trace"), first="INDEX"):
    return read_arguments(arguments, Grammar("USAGE", KEYS, groups=groups, first=first))


def test_keys_flags_and_overrides_in_any_order(tmp_path):
    given = read("--json", "round=3", "lr=0.1/run", "provenance=paper", "text=a=b", "provenance.layers=[a]")
    assert given.word == "lr=0.1/run"
    assert given.values == {"round": 3, "text": "a=b"}
    assert given.flags == {"--json"}
    assert given.overrides == ["provenance=paper", "provenance.layers=[a]"]
    assert given.picked("--json", "how", "text") == ["--json", "text"]
    values = read("carry=0.25", "without=[7, 3,3]", "figure=3,2", "how=train", f"png={tmp_path}/a.PNG").values
    assert values == {
        **{"carry": 0.25, "without": ("3", "7"), "figure": [3, 2], "how": "train"},
        "png": tmp_path / "a.PNG",
    }
    assert read("3", "seed=1,2", "a.b=", groups=None).overrides == ["seed=1,2", "a.b="]
    with pytest.raises(ConfigError, match="seed is given twice: '1' and '2'; give it once"):
        read("3", "seed=1", "seed=2", groups=None)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["rounds=1"], "unknown argument 'rounds=1'; did you mean 'round'?"),
        (["run", "--jsn"], "unknown argument '--jsn'; did you mean '--json'?"),
        (["run", "other"], "unknown argument 'other'; see USAGE --help"),
        (["run", "privacy.noise=1"], "unknown argument 'privacy.noise=1'"),
        (["round=1", "round=2"], "round is given twice: '1' and '2'; give it once"),
        (["text= "], "'text= ' has no value; see USAGE --help"),
        (["provenance="], "'provenance=' has no value"),
        (["round=0"], "round must be a whole number from 1, got '0'"),
        (["carry=nan"], r"carry must be a number in \[0, 1\], got 'nan'"),
        (["without=,"], "without must be the clients' numbers such as 3 or 3,7, got ','"),
        (["how=guess"], "how must be one of reaggregate, train, got 'guess'"),
        (["figure=2,4"], "figure must be among 2, 3, got '2,4'"),
        (["png=why"], "png='why': give a file that ends in .png, .pdf, .svg"),
        (["png=why.txt"], "png='why.txt': give a file that ends in .png, .pdf, .svg"),
        (["png=nowhere/why.png"], "png='nowhere/why.png': give a file in a folder that exists"),
    ],
)
def test_bad_input(arguments, words):
    with pytest.raises(ConfigError, match=words):
        read(*arguments)


def test_what_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").touch()
    assert read(str(tmp_path), "--json", first="RUN").folder == tmp_path
    with pytest.raises(ConfigError, match="no run is given; give its folder, .*; see USAGE --help"):
        read("round=1", first="RUN")
    with pytest.raises(RecordError, match="begins with 'nowhere'"):
        read("nowhere", first="RUN")
    assert read("round=1", first="FOLDER").place is None
    assert read(".", first="FOLDER").place == Path()
    with pytest.raises(ConfigError, match="FOLDER='nowhere' is not a folder"):
        read("nowhere", first="FOLDER")
    with pytest.raises(ConfigError, match=r"unknown argument '\.'"):
        read(".", first=None)


@pytest.mark.parametrize(
    ("arguments", "end"),
    [
        (["--round", "3"], "unknown option '--round'; keys are given as key=value: round=3"),
        (["run", "--round=3"], ": round=3"),
        (["run", "round", "3"], "unknown argument 'round'; keys are given as key=value: round=3"),
        (["run", "round", "=", "3"], ": round=3"),
        (["run", "round=", "3"], ": round=3"),
        (["--round", "--json"], ": round=..."),
        (["--round", "text=x"], ": round=..."),
        (["--provenance.verify", "3"], ": provenance.verify=3"),
        (["text=x", "--provenance", "paper"], ": provenance=paper"),
        (["provenance.layers=[fc,", "conv]"], "put quotes around it: 'provenance.layers=[fc, conv]'"),
    ],
)
def test_a_slip_is_answered_with_what_to_write(arguments, end):
    with pytest.raises(ConfigError) as refused:
        read(*arguments)
    assert str(refused.value).endswith(end)


def test_a_run_may_have_the_name_of_a_key():
    assert [read(*rest).word for rest in (["round"], ["round", "--json"], ["round", "text=x"])] == ["round"] * 3


@pytest.mark.parametrize(
    ("word", "line"),
    [("last", "tracefl: reading logs/a/run\n"), ("ru", "tracefl: reading logs/a/run\n"), ("logs/a/run", "")],
)
def test_which_run_is_read_is_said_where_it_was_not_written(monkeypatch, capsys, tmp_path, word, line):
    run = tmp_path / "logs" / "a" / "run"
    run.mkdir(parents=True)
    (run / "config.yaml").touch()
    monkeypatch.chdir(tmp_path)
    grammar, read = Grammar("USAGE"), []
    call = lambda: run_tool("Help.", grammar, read.append)  # noqa: E731
    assert call_main(monkeypatch, capsys, call, "tracefl", word) == (0, "", line)
    assert [given.folder for given in read] == [Path("logs/a/run")]


def test_on_a_terminal_the_first_word_does_not_wait(monkeypatch, capsys, tmp_path):
    (tmp_path / "config.yaml").touch()
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    said = []
    call_main(
        monkeypatch,
        capsys,
        lambda: run_tool("Help.", Grammar("USAGE"), lambda given: said.append(capsys.readouterr().err)),
        "tracefl",
        tmp_path,
    )
    assert said == [f"tracefl: reading {tmp_path}\n"]


@pytest.mark.parametrize(
    ("arguments", "status", "out"),
    [
        ([], 2, "Help.\n\nusage: USAGE\n"),
        (["--help"], 0, "Help.\n\nusage: USAGE\n"),
        (["nowhere", "-h"], 0, "Help.\n\nusage: USAGE\n"),
        (["nowhere", "--version"], 0, f"tracefl {__version__}\n"),
    ],
)
def test_help_and_version(monkeypatch, capsys, arguments, status, out):
    ran = []
    call = lambda: run_tool("Help.", Grammar("USAGE"), ran.append)  # noqa: E731
    assert call_main(monkeypatch, capsys, call, "tracefl", *arguments) == (status, out, "")
    assert ran == []


def test_a_command_may_need_no_argument(monkeypatch, capsys):
    ran = []
    call = lambda: run_tool("Help.", Grammar("USAGE", first="FOLDER", alone=True), ran.append)  # noqa: E731
    assert call_main(monkeypatch, capsys, call, "tracefl")[0] == 0
    assert len(ran) == 1


@pytest.mark.parametrize(
    ("module", "hidden", "arguments"),
    [
        ("tracefl.main", "hydra", ["dry_run=true"]),
        ("tracefl.trace", "rich", ["RUN"]),
        ("tracefl.jobs.__main__", "hydra", ["training", "--status"]),
    ],
)
def test_a_library_that_is_not_installed_is_one_line(tmp_path, module, hidden, arguments):
    (tmp_path / "config.yaml").touch()
    arguments = [argument.replace("RUN", str(tmp_path)) for argument in arguments]
    code = f"import sys; sys.modules[{hidden!r}] = None; from {module} import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"tracefl: {hidden} is not installed; pip install 'tracefl[run]'\n"
