"""``tracefl.run``: a configuration run from Python."""

import subprocess
import sys
from pathlib import Path

import matplotlib
import pytest
import torch

import tracefl
from tests.helpers.configuration import TINY
from tests.helpers.runs import TINY_MODEL
from tracefl.conf.composing import resolved_config
from tracefl.errors import ConfigError
from tracefl.experiment.launching import _words


def test_it_is_the_commands_run_to_the_bit(tmp_path):
    given = (word.removeprefix("++") for word in (*TINY, *TINY_MODEL) if not word.startswith("num_rounds="))
    words = [*given, "num_rounds=1", "provenance.inputs_per_label=1"]
    matplotlib.use("svg")
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    mine = tracefl.run(*words[:-2], num_rounds=1, provenance={"inputs_per_label": 1}, log_dir=tmp_path / "python")
    assert (torch.get_num_threads(), matplotlib.get_backend()) == (threads, "svg")
    matplotlib.use("agg")
    assert torch.equal(torch.get_rng_state(), state)
    command = [sys.executable, "-m", "tracefl", "run", *words, f"log_dir={tmp_path / 'shell'}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (theirs,) = (tmp_path / "shell").glob("*/*")
    assert mine.folder.relative_to(tmp_path / "python") == theirs.relative_to(tmp_path / "shell")
    for name in ("provenance.csv", "rounds/0001/global.safetensors"):
        assert (mine.folder / name).read_bytes() == (theirs / name).read_bytes(), name
    changed = (mine.folder / "command.txt").read_text().replace(str(tmp_path / "python"), str(tmp_path / "shell"))
    assert set(changed.split()) == set((theirs / "command.txt").read_text().split())
    assert len(mine.inputs) > 0
    assert len(mine.rounds) == 1
    again = tracefl.run(*words[:-2], num_rounds=1, provenance={"inputs_per_label": 1}, log_dir=tmp_path / "python")
    assert again.folder == mine.folder  # complete: nothing was run


@pytest.mark.parametrize(
    ("keys", "config"),
    [
        ({"num_rounds": 7, "dirichlet_alpha": 0.25}, {"num_rounds": 7, "dirichlet_alpha": 0.25}),
        ({"resume": True, "run_name": None}, {"resume": True, "run_name": None}),
        ({"log_dir": Path("/my runs/a=b, 'c' \"d\" [e]")}, {"log_dir": "/my runs/a=b, 'c' \"d\" [e]"}),
        ({"log_dir": "ends in \\"}, {"log_dir": "ends in \\"}),
        ({"without": (3, 5)}, {"without": [3, 5]}),
    ],
)
def test_values_are_written_as_the_configuration_reads_them(keys, config):
    found = resolved_config([word for key, value in keys.items() for word in _words(key, value)])
    assert {key: found[key] for key in config} == config


@pytest.mark.parametrize(
    ("words", "keys", "message"),
    [
        (["num_round=3"], {}, "num_round"),
        ([], {"num_rounds": object()}, "num_rounds must be a number, a text, None, or a list"),
        ([], {"num_rounds": "ten"}, "num_rounds"),
        (["--multirun", "num_rounds=1"], {}, "from Python one run is made here"),
        (["launcher=slurm"], {}, "from Python one run is made here"),
        ([], {"dry_run": True}, "dry_run=true plans a run"),
        (["num_rounds=3"], {"num_rounds": 5}, "num_rounds is given twice: '3' and '5'; give it once"),
    ],
)
def test_what_is_refused_is_refused_in_one_line(words, keys, message, tmp_path):
    with pytest.raises(ConfigError, match=message) as caught:
        tracefl.run(*words, log_dir=tmp_path, **keys)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())
