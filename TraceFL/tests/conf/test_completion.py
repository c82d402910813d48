"""What the TAB key offers, as words and in a real bash."""

import shlex
import shutil
import subprocess
import sys

import pytest

from tracefl.conf.completion import SCRIPTS, complete
from tracefl.conf.composing import resolved_config
from tracefl.conf.key_text import CONF, base_keys, choices, group_keys, named_values
from tracefl.conf.readers import OneOf, file, whole_number
from tracefl.conf.tool import Grammar
from tracefl.records.settings import read_keys

GRAMMARS = {
    "run": Grammar("USAGE", flags=("--multirun",), groups=None, first=None),
    "trace": Grammar(
        "USAGE",
        {"round": whole_number, "how": OneOf("this", "that"), "csv": file()},
        groups=("provenance", "privacy.trace"),
    ),
    "jobs": Grammar("USAGE", flags=("--list",), groups=None, first="INDEX", names=("training", "dp")),
}


@pytest.fixture
def place(monkeypatch, tmp_path):
    for path in ("logs/a/resnet18-1", "logs/a/same", "results/b/same"):
        (tmp_path / path).mkdir(parents=True)
        (tmp_path / path / "config.yaml").touch()
    monkeypatch.chdir(tmp_path)


def offered(line):
    return complete(f"tracefl {line}", GRAMMARS, GRAMMARS.__getitem__)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", ["run", "trace", "jobs"]),
        ("t", ["trace"]),
        ("--", ["--completion", "--help", "--version"]),
        ("--completion ", ["bash", "zsh", "fish"]),
        ("nothing ", []),
        ("trace res", ["results/b/same", "resnet18-1"]),
        ("trace la", ["last"]),
        ("trace logs/a/r", ["logs/a/resnet18-1"]),
        ("trace /", []),
        ("trace --", ["--help", "--json", "--version"]),
        ("trace last r", ["round="]),
        ("trace last round=3 ", ["how=", "csv=", "provenance="]),
        ("trace last --json --", ["--help", "--version"]),
        ("trace last how=", ["how=this", "how=that"]),
        ("trace last how=tha", ["how=that"]),
        ("trace last csv=", []),
        ("trace last provenance=le", ["provenance=leave_one_out"]),
        ("trace last provenance.tar", ["provenance.target="]),
        ("trace last privacy.", ["privacy.trace="]),
        ("trace last privacy.trace=b", ["privacy.trace=before_noise"]),
        ("trace last 'a word", []),
        ("run num_r", ["num_rounds="]),
        ("run model=resnet1", ["model=resnet101", "model=resnet152", "model=resnet18"]),
        ("run client.opt", ["client.optimizer="]),
        ("run client.optimizer=", ["client.optimizer=adam", "client.optimizer=adamw"]),
        ("run resume=t", ["resume=true"]),
        ("run fault.fl", ["fault.flip="]),
        ("run --m", ["--multirun"]),
        ("jobs ", ["training", "dp"]),
        ("jobs dp --l", ["--list"]),
        ("jobs dp num_c", ["num_clients="]),
    ],
)
def test_what_is_offered(place, line, words):
    assert offered(line) == words


def test_runs_are_offered_by_name_where_that_is_enough(place):
    assert sorted(offered("trace ")) == ["last", "logs/a/same", "resnet18-1", "results/b/same"]


def test_what_comments_name_are_values():
    # Each named value of each key is composed and read as a value that the key may have.
    values = {key: named_values(comment) for key, comment in base_keys().items() if named_values(comment)}
    assert values["client.precision"] == ["float32", "bf16"]
    assert len(values) >= 8
    for key, names in values.items():
        for name in names:
            read_keys(resolved_config([f"{key}={name}"]))


def test_every_group_and_key_is_found():
    assert {"num_clients", "client.lr", "ray.address", "seed"} < base_keys().keys()
    assert not any(key.startswith("hydra") for key in base_keys())
    for group in (path.name for path in CONF.iterdir() if path.is_dir()):
        keys = group_keys(group)
        assert all(key.startswith(f"{group}.") for key in keys)
        assert bool(keys) == (group not in ("launcher", "experiment", "__pycache__"))
        assert bool(choices(group)) == (group != "__pycache__")


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
@pytest.mark.parametrize(
    ("words", "reply"),
    [
        (["ledg"], ["ledger"]),
        (["trace", "resn"], ["resnet18-1"]),
        (["trace", "last", "provenance", "=", "le"], ["leave_one_out"]),
        (["trace", "last", "provenance", "="], None),
        (["replay", "last", "how", "=", "tr"], ["train"]),
        (["run", "num_rou"], ["num_rounds="]),
        (["ledger", "last", "csv", "=", "x"], []),
    ],
)
def test_bash_replaces_what_it_takes_for_the_last_word(place, words, reply):
    # As bash calls it: it takes a key, its equals sign and its value for three words, and replaces the last of them.
    line = "tracefl " + " ".join(words).replace(" = ", "=").replace(" =", "=")
    script = f"""
        tracefl() {{ {shlex.quote(sys.executable)} -m tracefl "$@"; }}
        eval "$(tracefl --completion bash)"
        compopt() {{ :; }}
        COMP_LINE={shlex.quote(line)} COMP_POINT={len(line)}
        COMP_WORDS=(tracefl {" ".join(words)}) COMP_CWORD={len(words)}
        _tracefl tracefl
        for each in "${{COMPREPLY[@]}}"; do echo "$each"; done
        complete -p tracefl >&2
    """
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    expected = choices("provenance") if reply is None else reply
    assert done.stdout.splitlines() == expected
    assert "-F _tracefl tracefl" in done.stderr


@pytest.mark.parametrize("shell", SCRIPTS)
def test_each_shell_has_a_script_that_calls_back(shell):
    done = subprocess.run(
        [sys.executable, "-m", "tracefl", "--completion", shell], capture_output=True, text=True, check=True
    )
    assert done.stdout == SCRIPTS[shell]
    assert " --complete " in done.stdout
