"""The command line: bad input is one line on stderr, status 2, and nothing written."""

import json
import subprocess
import sys

import pytest
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from tests.helpers.commands import call_main
from tests.helpers.configuration import compose_config
from tests.helpers.finished import finish
from tests.helpers.tables import whole_row
from tracefl.main import main
from tracefl.records.checksums import seal
from tracefl.records.claim import Claim


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
        (["model=densenet121", "dataset.image_size=16"], ["fails on its first inputs", "image_size, now 16"]),
        (["exp_key=a b=c"], ["tracefl:"]),
        (["--resolve"], ["--resolve says how --cfg prints", "add --cfg job"]),
        (
            ["--cfg", "job", "--multirun", "seed=1,2"],
            ["--cfg prints the configuration of one run; leave out"],
        ),
        (["--experimental-rerun", "x"], ["unknown option '--experimental-rerun', see --help"]),
        (["--run", "--multirun"], ["unknown option '--run', see --help"]),
        (["--hydra-help"], ["unknown option '--hydra-help', see --help"]),
        (["@a=1"], ["unknown key '@a', see --help"]),
        (["model@x=gpt"], ["unknown key 'model@x', see --help; did you mean 'model'"]),
        (["model=[a]"], ["'model=[a]' chooses nothing; choose one of "]),
        (["hydra.foo=1"], ["unknown key 'hydra.foo', see --help"]),
        (["seed=range(1,3)"], ["for one run type seed=1, for"]),
        (["seed=glob(*)"], ["for one run type seed=42, for"]),
        (["num_rounds=3", "num_rounds=5"], ["num_rounds is given twice: '3' and '5'; give it once"]),
        (["model=gpt", "seed=1", "model=bert"], ["model is given twice: 'gpt' and 'bert'"]),
        (["experiment=demo", "experiment=first_run"], ["experiment is given twice"]),
        (["model.config.layers=[1]", "++model.config.layers=[2]"], ["model.config.layers is given twice: '[1]'"]),
        (["--multirun", "seed=1,2", "seed=3"], ["seed is given twice: '1,2' and '3'"]),
        (["resume=", "resume=true"], ["resume is given twice: '' and 'true'"]),
        (["num_rounds==3"], ["num_rounds='=3' cannot be read", "type num_rounds=3"]),
        (["model=resnet18\r", "seed=1\r"], ["model='resnet18\\r'", "carriage return", "type model=resnet18"]),
        (["run_name=été"], ["type \"run_name='été'\""]),
        (["num_rounds:3"], ["keys are given as key=value: num_rounds=3"]),
        (["num_rounds", "3"], ["keys are given as key=value: num_rounds=3"]),
        (["--num-rounds", "3"], ["unknown option '--num-rounds'", "num_rounds=3"]),
        (["--num_rounds=3"], ["unknown option '--num_rounds=3'", "num_rounds=3"]),
        (["fault=label_flip", "fault.flip={1:", "0}"], ["put quotes around it: 'fault.flip={1: 0}'"]),
        (["--multirun", "seed=1,2", "--resume"], ["unknown option '--resume'", "resume=..."]),
        (["--config-dir"], ["--config-dir", "expected one argument"]),
        (["--json", "--multirun", "seed=1,2"], ["--json is for one run; of a sweep, results.json"]),
        (["--json", "launcher=slurm"], ["--json is for one run"]),
        (["--json", "num_rounds=0"], ["num_rounds"]),
        (["--config-dir", "/no/such"], ["/no/such"]),
        (["experiment=no/such.yaml"], ["experiment=no/such.yaml cannot be read: No such file"]),
        (["experiment=mime"], ["unknown experiment 'mime'", "or a file: experiment=path/to/mine.yaml"]),
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


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["num_rounds=ten"], "num_rounds must be a whole number of at least 1, got 'ten'"),
        (["provenance.verify=-1"], "provenance.verify must be a whole number of at least 0 or all or null, got -1"),
        (["--seed", "1"], "unknown option '--seed'; keys are given as key=value: seed=1"),
        (["clients_per_round=11"], "clients_per_round=11 is above num_clients=10; lower it"),
        (["overwrite=true", "resume=true"], "overwrite=true begins again and resume=true goes on; give one of them"),
    ],
)
def test_an_illegal_value_is_answered_before_torch_is_imported(arguments, line):
    code = "import sys; sys.modules['torch'] = None; import tracefl.main as m; m.main()"  # an import of torch raises
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"tracefl: {line}\n")


def test_a_folder_that_is_being_written_is_refused_before_torch_is_imported(tmp_path):
    folder = tmp_path / "logs" / "default" / "mine"
    folder.mkdir(parents=True)
    claim = Claim(folder)
    code = "import sys; sys.modules['torch'] = None; import tracefl.main as m; m.main()"
    command = [sys.executable, "-c", code, "run_name=mine", "seed=42"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    claim.release()
    assert (done.returncode, done.stdout) == (2, "")
    assert "is being written by process" in done.stderr


def test_the_first_word_comes_before_torch_is_imported(tmp_path):
    code = """
import sys

class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            raise ModuleNotFoundError(name=name)

sys.meta_path.insert(0, NoTorch())
import tracefl.main
tracefl.main.main()
"""
    command = [sys.executable, "-c", code, "num_rounds=3"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    first, second, *_ = done.stdout.splitlines()
    assert first.startswith("base.yaml with the keys given   (tracefl run alone: experiment=first_run;")
    assert second.startswith("loading torch for resnet18-digits-alpha0.3-4of10-3r-seed42-")
    assert done.returncode != 0


def test_dry_run_says_what_would_run_and_writes_nothing(run, tmp_path):
    status, out, _ = run("dry_run=true", "model=densenet121")
    assert status == 0
    assert "densenet121" in out
    assert "would run in logs/default/densenet121-digits-" in out
    assert list(tmp_path.rglob("*")) == []


@pytest.mark.parametrize("absolute", [False, True])
def test_an_experiment_may_be_a_file_of_ones_own(run, tmp_path, absolute):
    # table1 is also one of the package's: the file counts. It needs no header, and what it builds on is found.
    mine = tmp_path / "table1.yaml"
    mine.write_text("defaults: [_paper, override /model: densenet121]\nnum_rounds: 7\nbatch_size: 5\n")
    status, out, _ = run(f"experiment={mine if absolute else 'table1.yaml'}", "batch_size=6", "--cfg", "job")
    assert status == 0
    cfg = OmegaConf.create(out)
    assert (cfg.num_rounds, cfg.batch_size, cfg.model.name) == (7, 6, "densenet121")
    assert cfg.provenance.weighting == "none"  # the artifact's, of _paper


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a: [", "cannot be read"),
        (b"- 1", "holds no keys"),
        (b"n: 1", "n is unknown"),
        (b"42", "cannot be read: "),
        ("run_name: fünf".encode("latin-1"), "cannot be read: "),
    ],
)
def test_an_experiments_file_that_is_wrong(run, tmp_path, content, words):
    (tmp_path / "mine.yaml").write_bytes(content)
    status, _, err = run("experiment=mine.yaml")
    assert (status, len(err.splitlines())) == (2, 1)
    assert words in err
    assert "None" not in err


def test_a_folder_of_ones_own_adds_choices(run, tmp_path):
    (tmp_path / "own" / "experiment").mkdir(parents=True)
    (tmp_path / "own" / "experiment" / "mine.yaml").write_text("# @package _global_\nnum_rounds: 8\n")
    status, out, _ = run("batch_size=7", "--config-dir", "own", "experiment=mine", "--cfg", "job", "seed=3")
    cfg = OmegaConf.create(out)
    assert (status, cfg.num_rounds, cfg.seed, cfg.batch_size) == (0, 8, 3, 7)
    status, _, err = run("--config-dir", "own", "experiment=mien")
    assert status == 2
    assert "did you mean 'mine'?" in err


def test_json_is_all_that_is_printed(run, tmp_path, monkeypatch):
    def run_settings(settings, command):
        sys.stdout.write(f"made by {command}\n")
        settings.folder.mkdir(parents=True)
        finish(settings.folder, 3, final=whole_row(round=3, global_accuracy=0.5))

    monkeypatch.setattr("tracefl.experiment.runner.run_settings", run_settings)
    status, out, err = run("seed=1", "run_name=mine", "--json")
    said = json.loads(out)
    assert (status, said["run"], said["final"]["global_accuracy"]) == (0, "logs/default/mine", 0.5)
    assert "made by tracefl run seed=1 run_name=mine\n" in err


def test_json_of_what_would_run(run):
    status, out, err = run("--json", "model=resnet18", "run_name=mine", "dry_run=true")
    said = json.loads(out)
    assert (status, said["run"], said["model"], said["num_rounds"]) == (0, "logs/default/mine", "resnet18", 3)
    assert said["work"]["parameters"] > 1e6
    assert "would run in logs/default/mine" in err
    assert f"{said['work']['parameters'] / 1e6:.2f} million parameters" in err


def test_help(run):
    status, out, _ = run("--help")
    assert status == 0
    assert "clients_per_round: 4" in out


def test_a_run_of_another_configuration_is_refused(run, tmp_path):
    place = tmp_path / "logs" / "default" / "mine"
    place.mkdir(parents=True)
    OmegaConf.save(compose_config("run_name=mine", "seed=7", "store=all"), place / "config.yaml", resolve=True)
    seal(place)
    status, _, err = run("seed=42", "run_name=mine")
    assert status == 2
    assert "holds a run of another configuration (differs in seed)" in err
    (place / "config.yaml").write_text("a: [")
    assert "is damaged" in run("seed=42", "run_name=mine")[2]


def test_telemetry_is_off():
    code = "import os, tracefl; print(os.environ['FLWR_TELEMETRY_ENABLED'], os.environ['RAY_USAGE_STATS_ENABLED'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0", "0"]


def test_a_folder_that_is_no_run_is_refused(run, tmp_path):
    place = tmp_path / "logs" / "first_run" / "mine"
    place.mkdir(parents=True)
    (place / "precious.txt").write_text("keep me")
    status, _, err = run("run_name=mine")
    assert status == 2
    assert "is no run's folder" in err
    assert (place / "precious.txt").read_text() == "keep me"


@pytest.fixture
def asked_for(monkeypatch, tmp_path, capfd):
    """Return what a command line would run: (what is printed, settings, command)."""
    monkeypatch.chdir(tmp_path)
    made = []
    monkeypatch.setattr(
        "tracefl.experiment.runner.run_settings", lambda settings, command: made.append((settings, command))
    )

    def call(*arguments):
        GlobalHydra.instance().clear()
        status, out, err = call_main(monkeypatch, capfd, main, "tracefl", *arguments)
        assert (status, err) == (0, "")
        return out, *made.pop()

    return call


def test_without_arguments_the_first_run_is_made(asked_for):
    out, settings, command = asked_for()
    assert out.startswith("tracefl run experiment=first_run ")
    assert command == "tracefl run experiment=first_run"
    assert settings.exp_key == "first_run"
    assert settings.provenance.inputs == "all"  # so that mispredictions are among those traced


@pytest.mark.parametrize("words", [["resume=true"], ["overwrite=true"], ["dry_run=true"], ["store=all", "device=cpu"]])
def test_words_that_ask_for_no_other_run_leave_the_first_one(asked_for, words):
    out, settings, _ = asked_for(*words)
    assert out.startswith(f"tracefl run experiment=first_run {' '.join(words)} ")
    assert settings.folder == asked_for()[1].folder


@pytest.mark.parametrize("words", [["num_rounds=4"], ["model=resnet18", "resume=true"], ["model.config.layers=[1]"]])
def test_words_that_ask_for_another_run_get_the_base_configuration(asked_for, words):
    out, settings, _ = asked_for(*words)
    assert out.startswith("base.yaml with the keys given   (tracefl run alone: experiment=first_run;")
    assert settings.exp_key == "default"


def test_an_experiment_that_is_named_needs_no_line(asked_for):
    out, settings, _ = asked_for("resume=true", "experiment=demo")
    assert (out, settings.exp_key) == ("", "demo")
