"""The command ``tracefl``: its help, and which program a subcommand is. What the programs do is tested at theirs."""

import os
import subprocess
import sys
from importlib import import_module

import pytest

from tests.helpers.commands import call_main
from tracefl import __version__
from tracefl.__main__ import HELP_TEXT, PROGRAMS, main
from tracefl.conf.tool import read_arguments
from tracefl.errors import ConfigError

SLOW = ("torch", "hydra", "omegaconf", "rich", "matplotlib", "numpy", "ray", "flwr", "yaml", "jinja2")


def tracefl(*arguments, cwd=None):
    """Run the command where the slow libraries cannot be imported; returns (status, stdout, stderr)."""
    hide = f"import sys; sys.modules.update(dict.fromkeys({SLOW!r})); from tracefl.__main__ import main; main()"
    command = [sys.executable, "-c", hide, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)
    return done.returncode, done.stdout, done.stderr


def test_help_fits_a_screen():
    assert len(HELP_TEXT.splitlines()) < 24
    assert max(map(len, HELP_TEXT.splitlines())) <= 80
    assert all(f"\n    {name} " in HELP_TEXT for name in PROGRAMS)
    assert tracefl("--help") == tracefl("-h") == tracefl("help") == (0, HELP_TEXT, "")
    assert tracefl("help", "ledger") == tracefl("ledger", "--help")
    assert tracefl() == (2, HELP_TEXT, "")


@pytest.mark.parametrize("arguments", [["--version"], *([name, "--version"] for name in PROGRAMS)], ids=" ".join)
def test_version_waits_for_no_library(arguments):
    assert tracefl(*arguments) == (0, f"tracefl {__version__}\n", "")


@pytest.mark.parametrize(
    "name", sorted(PROGRAMS.keys() - {"run"})
)  # run's help is read from the configuration, by Hydra's side
def test_help_of_a_subcommand_waits_for_no_library(name):
    status, out, err = tracefl(name, "--help")
    assert (status, err) == (0, "")
    assert f"\n\nusage: tracefl {name}" in out
    assert "``" not in out  # a docstring's, not a terminal's
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize(
    "name", sorted(PROGRAMS.keys() - {"run", "demo", "collect"})
)  # these do something by themselves
def test_a_subcommand_alone_prints_its_help(name):
    status, out, err = tracefl(name)
    assert (status, err) == (2, "")
    assert f"\nusage: tracefl {name}" in out


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["trce", "last"], "unknown command 'trce'; did you mean 'trace'?"),
        (["--verson"], "unknown command '--verson'; did you mean '--version'?"),
        (["num_rounds=3"], "no command is given; write tracefl run num_rounds=3"),
        (["xyz"], f"unknown command 'xyz'; choose one of {', '.join(PROGRAMS)}"),
        (
            ["trace", "last"],
            "there is no run below logs/ or results/ of TMP; make one with `tracefl run`, or give a run's folder",
        ),
        (["trace", "--round", "3"], "unknown option '--round'; keys are given as key=value: round=3"),
        (["ledger", "round=3"], "unknown argument 'round=3'; see tracefl ledger --help"),
        (["replay", "without=two"], "without must be the clients' numbers such as 3 or 3,7, got 'two'"),
        (["collect"], "there is no folder logs/ or results/ of TMP; give the folder of the runs"),
        (["figures", "table=7"], "table must be among 1, 2, 3, got '7'"),
        (["jobs", "traning"], "unknown job 'traning'; choose one of training, dp, scalability, dirichlet, faulty"),
    ],
)
def test_bad_input_is_one_line_and_waits_for_no_library(tmp_path, arguments, line):
    assert tracefl(*arguments, cwd=tmp_path) == (2, "", f"tracefl: {line.replace('TMP', str(tmp_path))}\n")


@pytest.mark.parametrize("name", sorted(PROGRAMS.keys() - {"run", "jobs"}))  # which pass keys on to runs
@pytest.mark.parametrize("argument", ["nosuchkey=3", "--nosuchflag", "nosuchword", "=3", "json="])
def test_a_refusal_names_the_argument_and_leaves_the_usage_to_the_help(name, argument):
    grammar = import_module(PROGRAMS[name][0]).GRAMMAR
    with pytest.raises(ConfigError) as refused:
        read_arguments(["somewhere", argument] if grammar.first else [argument], grammar)
    message = str(refused.value)
    assert repr(argument) in message
    assert len(message) < 100, message
    assert grammar.usage not in message
    assert "\n" not in message


@pytest.mark.parametrize(
    "arguments", ["--help", "--version", "trace --help", "jobs training --list", "--completion bash"]
)
@pytest.mark.parametrize("buffered", ["", "1"])
def test_a_reader_that_has_enough_hears_no_complaint(arguments, buffered):
    # The reader is gone before the first word: sleep ends after true has.
    script = f"(sleep 0.2; {sys.executable} -m tracefl {arguments}) | true; exit ${{PIPESTATUS[0]}}"
    environment = os.environ | {"PYTHONUNBUFFERED": buffered}
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize("module", [module.removesuffix(".__main__") for module, _ in PROGRAMS.values()])
def test_a_module_is_a_program_too(module):
    done = subprocess.run([sys.executable, "-m", module, "--version"], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == (f"tracefl {__version__}\n", "")


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_subcommand_is_the_main_of_its_module(name, monkeypatch, capsys):
    got = []
    monkeypatch.setattr("os._exit", lambda status: got.append(status))
    monkeypatch.setattr(f"{PROGRAMS[name][0]}.main", lambda: got.append(sys.argv[1:]))
    call_main(monkeypatch, capsys, main, "tracefl", name, "last", "a=b")
    assert got == [["last", "a=b"], 0]
