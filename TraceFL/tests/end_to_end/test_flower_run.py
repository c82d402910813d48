"""``flwr run`` on Flower's own simulation."""

import pytest

from tests.helpers.configuration import compose_settings
from tests.helpers.flower_processes import APP, Flower
from tests.helpers.processes import wait_until
from tests.helpers.runs import LIGHT_MODEL
from tests.helpers.sockets import answer_to_a_stranger, listening
from tests.helpers.tables import read_untimed
from tracefl.experiment.runner import run_settings

pytestmark = [pytest.mark.slow, pytest.mark.simulation]

KEYS = ("store=all", "run_name=run", *LIGHT_MODEL)
ONE_CPU = ("--federation-config", "num-supernodes=2 client-resources-num-cpus=1 init-args-num-cpus=1")


@pytest.fixture(scope="module")
def flower(tmp_path_factory):
    with Flower(tmp_path_factory.mktemp("flower")) as started:
        yield started


def finished(flower, run_id):
    """Wait for a run's end; returns its status, what Flower says of it, and its output."""
    wait_until(lambda: flower.status(run_id)[0].startswith("finished"), lambda: flower.ask("log", run_id, "--show"))
    return *flower.status(run_id), flower.ask("log", run_id, "--show")


def test_the_app_gives_what_main_gives_to_the_last_bit(flower, tmp_path):
    before = (APP / "pyproject.toml").read_bytes()
    run_id = flower.submit(
        f"experiment='smoke' log_dir='{tmp_path / 'app'}' num_rounds=2 overrides='{' '.join(KEYS)}'", *ONE_CPU
    )
    status, said, output = finished(flower, run_id)
    assert status == "finished:completed", said + output
    assert f"tracefl: experiment smoke; results in {tmp_path / 'app' / 'smoke' / 'run'}" in output
    assert "Installing application dependencies" not in output
    assert (APP / "pyproject.toml").read_bytes() == before
    keys = ("experiment=smoke", f"log_dir={tmp_path / 'main'}", "num_rounds=2", *KEYS)
    run_settings(compose_settings(*keys, "backend=in_process"), command="typed")
    app, main = (tmp_path / way / "smoke" / "run" for way in ("app", "main"))
    assert read_untimed(app / "rounds.csv") == read_untimed(main / "rounds.csv")
    assert (app / "provenance.csv").read_bytes() == (main / "provenance.csv").read_bytes()
    assert {path.name for path in app.iterdir()} == {path.name for path in main.iterdir()}
    weights = sorted(path.relative_to(main) for path in (main / "rounds").rglob("*.safetensors"))
    assert len(weights) == 2 * 4  # a round's two clients, the global weights before and after
    for path in weights:
        assert (app / path).read_bytes() == (main / path).read_bytes(), path


def test_bad_input_fails_the_run_with_one_line(flower, tmp_path):
    message = "unknown experiment 'exp_9'; choose one of demo, exp_1, exp_2, exp_3"
    run_id = flower.submit(f"experiment='exp_9' log_dir='{tmp_path / 'bad'}'", *ONE_CPU)
    status, said, output = finished(flower, run_id)
    assert status == "finished:failed"
    assert message in said
    assert f"tracefl: {message}" in output
    assert not (tmp_path / "bad").exists()


@pytest.mark.parametrize("run_config", ["num_round=3", "exp_9.toml"])
def test_flower_itself_refuses_unknown_keys_and_files(flower, run_config):
    status, said = flower.flwr("run", ".", "--run-config", run_config)
    assert status == 1, said


@pytest.mark.long  # tests/test_server_app.py has the same without Flower's processes
def test_a_bare_name_is_no_experiment_and_the_output_tells(flower):
    run_id = flower.submit("exp_1", "--run-config", "overrides='dry_run=true'", *ONE_CPU)
    status, said, output = finished(flower, run_id)
    assert status == "finished:completed", said + output
    assert "tracefl: experiment none, the main job (choose one: --run-config exp_1.toml)" in output


def test_what_listens_while_it_runs_asks_a_stranger_for_the_token_or_is_flowers_own(flower, tmp_path):
    superlink = flower.processes["superlink"].pid
    before = listening(superlink)
    assert before == {flower.port: ("127.0.0.1", "flower-superlin")}  # asks nobody: docs/threats.md says so
    run_id = flower.submit(
        f"experiment='smoke' log_dir='{tmp_path}' num_rounds=1000 overrides='run_name=run'", *ONE_CPU
    )
    rounds = tmp_path / "smoke" / "run" / "rounds.csv"
    wait_until(
        lambda: rounds.exists() and rounds.read_text().count("\n") > 1, lambda: flower.ask("log", run_id, "--show")
    )
    sockets = listening(superlink, before)
    assert len(sockets) >= 6, sockets  # of the GCS, the raylet (2), its agent, a worker and the simulation
    said = {(port, *owner): _answer(port, owner[0]) for port, owner in sockets.items()}
    assert set(said.values()) == {"UNAUTHENTICATED", "401"}, said
    assert flower.status(run_id)[0] == "running"
    flower.flwr("stop", run_id)


def _answer(port, address):
    return answer_to_a_stranger(port, "127.0.0.1" if address == "::" else address)
