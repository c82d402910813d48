"""The command line: bad input is one line on stderr, status 2, and nothing written."""

import subprocess
import sys

import pytest
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from tests.helpers.commands import call_main
from tests.helpers.configuration import compose_config
from tracefl.main import main


@pytest.fixture
def run(monkeypatch, tmp_path, capfd):
    """Call the command line in an empty folder; returns (status, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        GlobalHydra.instance().clear()
        return call_main(monkeypatch, capfd, main, "tracefl", *arguments)

    return call


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["model=resnet19"], ["unknown model 'resnet19'", "resnet18", "choose one of"]),
        (["dataset=minst"], ["unknown dataset 'minst'", "did you mean 'mnist'"]),
        (["store=some"], ["unknown store 'some'", "choose one of all, last, none"]),
        (["num_client=3"], ["unknown key 'num_client'", "did you mean 'num_clients'"]),
        (["client.learning_rate=3"], ["unknown key 'client.learning_rate'"]),
        (["clients_per_round=11"], ["clients_per_round=11 is above num_clients=10"]),
        (["dirichlet_alpha=0"], ["dirichlet_alpha must be a number above 0, got 0"]),
        (["model=gpt"], ["model=gpt takes texts and dataset=digits holds images"]),
        (["dataset=mnist", "dataset.path=/no/such/folder"], ["/no/such/folder", "dataset.path"]),
        (["dataset=pathmnist", "dataset.root=/no/such/folder"], ["/no/such/folder", "dataset.root"]),
        (["num_clients=2000", "clients_per_round=2"], ["2000", "num_clients"]),
        (["batch_size=1500"], ["batch_size"]),
        (["exp_key=a b=c"], ["tracefl:"]),
        (["+num_client=3"], ["keys cannot be added or removed", "did you mean 'num_clients'"]),
        (["~client.lr"], ["keys cannot be added or removed"]),
        (["model.pretrained=/no/such.pt"], ["/no/such.pt", "model.pretrained"]),
        (["provenance.layers=[fcc]"], ["layer 'fcc' does not exist", "did you mean 'fc'"]),
        (["log_dir=/dev/null/x"], ["cannot write below /dev/null"]),
    ],
)
def test_bad_input(run, tmp_path, arguments, words):
    status, _, err = run(*arguments)
    lines = err.strip().splitlines()
    assert status == 2
    assert len(lines) == 1, err
    assert lines[0].startswith("tracefl: ")
    for word in words:
        assert word in err
    assert list(tmp_path.rglob("*")) == []


def test_dry_run_says_what_would_run_and_writes_nothing(run, tmp_path):
    status, out, _ = run("dry_run=true", "model=densenet121")
    assert status == 0
    assert "densenet121" in out
    assert "would run in logs/default/densenet121-digits-" in out
    assert list(tmp_path.rglob("*")) == []


def test_help(run):
    status, out, _ = run("--help")
    assert status == 0
    assert "clients_per_round: 4" in out


def test_a_run_of_another_configuration_is_refused(run, tmp_path):
    place = tmp_path / "logs" / "default" / "mine"
    place.mkdir(parents=True)
    OmegaConf.save(compose_config("run_name=mine", "seed=7", "store=all"), place / "config.yaml", resolve=True)
    status, _, err = run("run_name=mine")
    assert status == 2
    assert "holds a run of another configuration (differs in seed)" in err
    (place / "config.yaml").write_text("a: [")
    assert "is damaged" in run("run_name=mine")[2]


def test_telemetry_is_off():
    code = "import os, tracefl; print(os.environ['FLWR_TELEMETRY_ENABLED'], os.environ['RAY_USAGE_STATS_ENABLED'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0", "0"]


def test_a_folder_that_is_no_run_is_refused(run, tmp_path):
    place = tmp_path / "logs" / "default" / "mine"
    place.mkdir(parents=True)
    (place / "precious.txt").write_text("keep me")
    status, _, err = run("run_name=mine")
    assert status == 2
    assert "is no run's folder" in err
    assert (place / "precious.txt").read_text() == "keep me"
