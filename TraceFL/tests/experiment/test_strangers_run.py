"""A folder from somebody else, trained again: it decides the numbers, and neither what is sent nor what is read."""

import shutil
import sys
import types

import pytest
from omegaconf import OmegaConf

from tests.helpers.commands import call_main
from tests.helpers.runs import TINY_MODEL, run
from tracefl.questions.verify import verify
from tracefl.records.checksums import seal
from tracefl.records.run import StoredRun
from tracefl.replay import main

SECRET = "hunter2-of-whoever-opens-it"
THEIRS = "somebody-else"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return run(tmp_path_factory.mktemp("made"), *TINY_MODEL, "store=all")


@pytest.fixture
def folder(made, tmp_path, monkeypatch):
    """The folder, where there is a secret in the environment."""
    monkeypatch.setenv("A_SECRET", SECRET)
    monkeypatch.setenv("WANDB_API_KEY", SECRET)
    return shutil.copytree(made, tmp_path / "logs" / "default" / "run")


@pytest.fixture
def asked(monkeypatch):
    """What W&B is asked for: the arguments of each ``wandb.init``, which fails."""
    calls = []

    def init(**arguments):
        calls.append(arguments)
        raise RuntimeError("there is no W&B here")

    stub = types.ModuleType("wandb")
    stub.init = init
    stub.Settings = lambda **options: options
    monkeypatch.setitem(sys.modules, "wandb", stub)
    return calls


@pytest.fixture
def replay(monkeypatch, capfd):
    def replay(folder, *words):
        capfd.readouterr()
        return call_main(monkeypatch, capfd, main, "replay", folder, "without=1", *words)

    return replay


def give(folder, **values):
    """Change the stored configuration, and make its checksum again, as whoever sent the folder can."""
    config = OmegaConf.load(folder / "config.yaml")
    for key, value in values.items():
        OmegaConf.update(config, key.replace("__", "."), value)
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(config))
    seal(folder)


def written(tmp_path):
    """Return the text of all files below a folder."""
    return "".join(path.read_bytes().decode(errors="replace") for path in tmp_path.rglob("*") if path.is_file())


def test_a_secret_of_the_environment_is_not_looked_up(folder, tmp_path, asked, replay):
    """The attack: W&B online, somebody's entity, and a project by which it would be told the secret."""
    give(folder, wandb__mode="online", wandb__entity=THEIRS, wandb__project="${oc.env:A_SECRET}")
    before = sorted(tmp_path.rglob("*"))
    status, out, err = replay(folder, "how=train")
    assert (status, out, len(err.splitlines())) == (2, "", 1)
    assert "config.yaml is damaged or of another version of tracefl: it has '${oc.env:A_SECRET}'" in err
    assert SECRET not in err
    assert asked == []
    assert sorted(tmp_path.rglob("*")) == before
    assert SECRET not in written(tmp_path)
    assert verify(folder).problems[0].startswith(f"{folder / 'config.yaml'} is damaged")


def test_what_is_sent_is_said_here(folder, tmp_path, asked, replay):
    give(
        folder,
        **{"wandb__mode": "online", "wandb__entity": THEIRS, "wandb__project": THEIRS, "ray__address": "6.6.6.6:6379"},
        **{"total_cpus": 99, "backend": "ray", "dry_run": True, "runs_at_once": 50, "strategy__timeout_seconds": 1e-3},
    )
    status, _, err = replay(folder, "how=train", "backend=in_process")
    assert status == 0, err
    assert asked == []
    new = folder.with_name("run-without-1-from-1")
    ours = StoredRun(new).settings
    assert (ours.wandb.mode, ours.wandb.entity, ours.wandb.project) == ("disabled", None, "tracefl")
    assert (ours.ray.address, ours.total_cpus, ours.backend, ours.runs_at_once) == (None, None, "in_process", 1)
    assert ours.strategy.timeout_seconds != 1e-3
    assert verify(new).is_whole
    text = written(new)
    assert THEIRS not in text
    assert SECRET not in text
    assert SECRET not in written(tmp_path)


def test_w_and_b_is_told_what_is_given_here_and_no_more(folder, asked, replay):
    give(folder, wandb__mode="online", wandb__entity=THEIRS, wandb__project=THEIRS)
    status, _, err = replay(folder, "how=train", "backend=in_process", "wandb.mode=offline", "wandb.project=mine")
    assert status == 0, err
    (arguments,) = asked
    assert (arguments["mode"], arguments["project"], arguments["entity"]) == ("offline", "mine", None)
    assert THEIRS not in str(arguments)
    assert SECRET not in str(arguments)


@pytest.mark.parametrize(
    ("values", "words", "message"),
    [
        (
            {"dataset__path": "/home/me/private"},
            ["how=train"],
            "read dataset.path='/home/me/private', and what is read",
        ),
        (
            {"dataset__root": "/home/me/private"},
            ["how=train"],
            "read dataset.root='/home/me/private', and what is read",
        ),
        ({"model__pretrained": "/home/me/weights.pt"}, ["how=train"], "read model.pretrained='/home/me/weights.pt'"),
        ({}, ["how=train", "seed=7"], "unknown argument 'seed=7'"),
        ({}, ["how=train", "dataset.name=mnist"], "dataset.name decides the run's numbers, and stays"),
        ({}, ["how=train", "model.pretrained=x.pt"], "model.pretrained decides the run's numbers, and stays"),
        ({}, ["how=reaggregate", "device=cpu"], "device=cpu says where to train, and nothing is trained again"),
    ],
)
def test_what_is_read_is_said_here_and_the_rest_stays(folder, asked, replay, values, words, message):
    give(folder, **values)
    status, out, err = replay(folder, *words)
    assert (status, out) == (2, "")
    assert message in err.splitlines()[-1]
    assert asked == []
    assert not folder.with_name("run-without-1-from-1").exists()
