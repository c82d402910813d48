"""The one grammar of the programs' arguments."""

import subprocess
import sys
from pathlib import Path

import pytest

from tracefl.conf.tool import (
    PICTURES,
    clients,
    file,
    fraction,
    one_of,
    read_arguments,
    read_run_arguments,
    some_of,
    text,
    whole_number,
)
from tracefl.errors import ConfigError, RecordError

KEYS = {
    **{"round": whole_number, "text": text, "carry": fraction, "without": clients},
    **{"how": one_of("reaggregate", "train"), "figure": some_of(2, 3), "png": file(*PICTURES)},
}


def read(*arguments, groups=("provenance", "privacy.trace"), **options):
    return read_arguments(arguments, "USAGE", KEYS, flags=("--json",), groups=groups, **options)


def test_keys_flags_and_overrides_in_any_order(tmp_path):
    given = read("--json", "round=3", "lr=0.1/run", "provenance=paper", "text=a=b", "provenance.layers=[a]")
    assert given.words == ["lr=0.1/run"]
    assert given.values == {"round": 3, "text": "a=b"}
    assert given.flags == {"--json"}
    assert given.overrides == ["provenance=paper", "provenance.layers=[a]"]
    assert given.picked("--json", "how", "text") == ["--json", "text"]
    values = read("carry=0.25", "without=[7, 3,3]", "figure=3,2", "how=train", f"png={tmp_path}/a.PNG").values
    assert values == {
        **{"carry": 0.25, "without": ("3", "7"), "figure": [3, 2], "how": "train"},
        "png": tmp_path / "a.PNG",
    }
    assert read("3", "seed=1", "seed=2", "a.b=", groups=None).overrides == ["seed=1", "seed=2", "a.b="]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "rounds=1"], "unknown argument 'rounds=1'; did you mean 'round'?"),
        (["run", "--jsn"], "unknown argument '--jsn'; did you mean '--json'?"),
        (["run", "other"], "unknown argument 'other'; usage: USAGE"),
        (["run", "privacy.noise=1"], "unknown argument 'privacy.noise=1'"),
        (["round=1", "round=2"], "round is given twice: '1' and '2'; give it once"),
        (["text= "], "'text= ' has no value; usage: USAGE"),
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


def test_what_is_missing(tmp_path):
    with pytest.raises(ConfigError, match="how= is missing; usage: USAGE"):
        read("run", required=("how",))
    with pytest.raises(ConfigError, match="no run's folder is given; usage: USAGE"):
        read_run_arguments(["round=1"], "USAGE", KEYS)
    with pytest.raises(RecordError, match="'nowhere' is no run's folder; give one below log_dir"):
        read_run_arguments(["nowhere"], "USAGE", KEYS)
    assert read_run_arguments([str(tmp_path), "--json"], "USAGE", KEYS).folder == tmp_path


@pytest.mark.parametrize(
    ("module", "hidden", "arguments"),
    [
        ("tracefl.main", "hydra", ["dry_run=true"]),
        ("tracefl.trace", "rich", ["."]),
        ("tracefl.jobs.__main__", "hydra", ["training", "--status"]),
    ],
)
def test_a_library_that_is_not_installed_is_one_line(module, hidden, arguments):
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


@pytest.mark.parametrize(
    "module", ["trace", "counterfactual", "replay", "ledger", "collect", "visualize", "report.__main__"]
)
def test_help_waits_for_no_library(module):
    code = f"import sys; import tracefl.{module} as m; m.main()"
    hide = "import sys; sys.modules.update(dict.fromkeys(('torch', 'hydra', 'rich', 'matplotlib'))); "
    done = subprocess.run([sys.executable, "-c", hide + code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "\nusage: python " in done.stdout
