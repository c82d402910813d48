import io
import tomllib
import zipfile
from pathlib import Path

import pytest
from flwr.cli.build import build_fab_from_disk
from flwr.common.config import parse_config_args

from tests.helpers.configuration import REPOSITORY, TINY
from tracefl import server_app
from tracefl.conf.composing import compose_config, resolved_config
from tracefl.errors import ConfigError
from tracefl.paper.exhibits import EXHIBITS
from tracefl.server_app import read_overrides, results_folder, run_simulated

APP = REPOSITORY / "TraceFL"
PYPROJECT = tomllib.loads((APP / "pyproject.toml").read_text())
DEFAULTS = PYPROJECT["tool"]["flwr"]["app"]["config"]


def test_what_is_empty_is_left_and_the_rest_is_as_on_the_command_line():
    given = DEFAULTS | {"experiment": "exp_2", "num_rounds": 7, "dirichlet_alpha": 0.5, "overwrite": True}
    given["overrides"] = "model.name='my model' client.lr=0.01 fault.clients=[0,3]"
    assert read_overrides(given) == [
        "experiment=exp_2",
        "log_dir=results",
        "num_rounds=7",
        "dirichlet_alpha=0.5",
        "overwrite=true",
        "model.name=my model",
        "client.lr=0.01",
        "fault.clients=[0,3]",
    ]


@pytest.mark.parametrize("folder", ["/data/my results", "it's", "a,b", "back\\slash", "end\\", "\\'", "1=2"])
def test_a_folder_of_any_name_arrives_as_it_is(folder):
    assert compose_config(read_overrides({"log_dir": folder})).log_dir == folder


def test_a_quote_without_its_end_is_refused():
    with pytest.raises(ConfigError, match=r"overrides=\"client.lr='0.1\" has a quote without its end"):
        read_overrides({"overrides": "client.lr='0.1"})
    with pytest.raises(ConfigError, match="overrides must be text such as"):
        read_overrides({"overrides": 3})
    with pytest.raises(ConfigError, match="num_rounds is given twice: '2' and '3'; give it once"):
        read_overrides({"num_rounds": 2, "overrides": "num_rounds=3"})


def test_every_common_key_is_a_key_of_ours():
    for key in set(DEFAULTS) - {"overrides"}:
        assert DEFAULTS[key] == ("results" if key == "log_dir" else "")
        assert key in compose_config([]) or (APP / "tracefl" / "conf" / key).is_dir()


@pytest.mark.parametrize(("number", "figure"), [(1, "figure2"), (2, "figure3"), (3, "figure5")])
def test_the_named_experiments_trace_as_the_papers_and_need_no_network(number, figure):
    name = f"exp_{number}"
    file = tomllib.loads((APP / f"{name}.toml").read_text())
    assert file == {"experiment": name}
    ours, papers = map(resolved_config, (read_overrides(DEFAULTS | file), [f"experiment={figure}"]))
    assert (ours["exp_key"], ours["log_dir"]) == (name, "results")
    for shared in ("provenance", "strategy", "fault", "privacy", "store"):
        assert ours[shared] == papers[shared]
    assert ours["dataset"]["source"] == "digits"  # comes with a package
    assert ours["model"]["pretrained"] is False
    assert name in EXHIBITS[figure].keys


def test_flower_finds_nothing_to_rewrite():
    assert "federations" not in PYPROJECT["tool"]["flwr"]


def test_results_go_to_a_folder_that_does_not_depend_on_where_flower_runs(tmp_path, monkeypatch):
    before = results_folder("results")
    assert before.is_absolute()
    assert (before.parent / "pyproject.toml").exists()
    monkeypatch.chdir(tmp_path)
    assert results_folder("results") == before
    assert results_folder("/elsewhere/results") == Path("/elsewhere/results")


def test_without_a_checkout_results_go_to_the_home_folder(monkeypatch):
    def missing(name):
        raise server_app.PackageNotFoundError(name)

    monkeypatch.setattr(server_app, "distribution", missing)
    assert results_folder("results") == Path.home().resolve() / "results"


@pytest.mark.parametrize(("mode", "is_said"), [("token", False), ("", True)])
def test_an_open_ray_is_said(capsys, tmp_path, monkeypatch, mode, is_said):
    monkeypatch.setenv("RAY_AUTH_MODE", mode)
    run_simulated({"log_dir": str(tmp_path), "overrides": " ".join(("dry_run=true", *TINY))}, None)
    said = capsys.readouterr().out.splitlines()[1]
    assert said.startswith("tracefl: whoever reaches this machine can run code in this run") == is_said


def test_the_experiment_is_said_before_it_runs(capsys, tmp_path):
    settings = {"log_dir": str(tmp_path), "overrides": " ".join(("dry_run=true", *TINY))}
    run_simulated({"experiment": "smoke", **settings}, None)
    assert capsys.readouterr().out.startswith(f"tracefl: experiment smoke; results in {tmp_path}/smoke/")
    run_simulated({"experiment": "", **settings}, None)
    assert capsys.readouterr().out.startswith("tracefl: experiment none, the main job (choose one: --run-config exp_1")
    assert not list(tmp_path.iterdir())


def test_flower_ignores_a_bare_name_and_the_output_tells(capsys, tmp_path):
    """As ``--run-config exp_1`` is, where ``exp_1.toml`` is meant."""
    given = parse_config_args(["exp_1", f"log_dir='{tmp_path}'", "overrides='dry_run=true'"])
    assert given == {"log_dir": str(tmp_path), "overrides": "dry_run=true"}
    run_simulated(DEFAULTS | given, None)
    assert "tracefl: experiment none, the main job (choose one: --run-config exp_1.toml)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("run_config", "message"),
    [
        ({"experiment": "exp_9"}, "unknown experiment 'exp_9'; choose one of demo, exp_1, exp_2, exp_3"),
        ({"overrides": "num_round=3"}, "unknown key 'num_round', see --help; did you mean 'num_rounds'"),
        ({"num_rounds": "three"}, "num_rounds must be a whole number of at least 1, got 'three'"),
        ({"overrides": "total_cpus=1"}, "total_cpus=1 has no effect in flwr run, where Flower starts the clients"),
        ({"overrides": "backend=in_process"}, "backend=in_process has no effect in flwr run, where Flower starts"),
        ({"overrides": "client_resources.gpus=0"}, "client_resources.gpus=0 has no effect in flwr run"),
    ],
)
def test_bad_input_is_one_line_and_stops_the_run(run_config, message, capsys, tmp_path):
    with pytest.raises(ConfigError) as caught:
        run_simulated({"log_dir": str(tmp_path), **run_config}, None)
    assert message in str(caught.value)
    said = capsys.readouterr().out.splitlines()
    assert said == [f"tracefl: {caught.value}"]
    assert not list(tmp_path.iterdir())


def test_the_app_holds_every_file_of_the_package_that_a_run_reads():
    """Flower leaves out files of kinds that it does not know."""
    with zipfile.ZipFile(io.BytesIO(build_fab_from_disk(APP))) as packed:
        names = set(packed.namelist())
    package = {str(path.relative_to(APP)) for path in (APP / "tracefl").rglob("*") if path.is_file()}
    missing = {name for name in package - names if "__pycache__" not in name}
    assert {Path(name).name for name in missing} == {
        "published.csv",
        "published_figure6.csv",
        "published_table1.csv",
        "py.typed",
    }  # what collect and visualize_results compare with, and what type checkers look for; no run reads them
    assert not {name for name in names if name.startswith(("tests/", "benchmarks/", "documentation/"))}
