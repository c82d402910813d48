"""Where the clients are called, and why."""

from statistics import mean

import pytest
import torch

from tests.helpers.configuration import TINY, compose_settings
from tests.helpers.runs import SMALL_MODEL
from tracefl.errors import ConfigError
from tracefl.experiment.backend import RAY_SECONDS, Work, backend_for, backend_of, estimate_work, read_resources
from tracefl.experiment.experiment import Experiment
from tracefl.experiment.preparation import prepare_run
from tracefl.experiment.runner import run_settings
from tracefl.federation.resources import Resources
from tracefl.records.folder import RunFolder


def resources(cpus=4, gpus=0, client_cpus=1, client_gpus=0.0, address=None):
    return Resources(cpus, gpus, client_cpus, client_gpus, address)


@pytest.mark.parametrize(
    ("keys", "available", "said"),
    [
        (["backend=in_process"], resources(), "backend=in_process: as configured"),
        (["backend=ray"], resources(cpus=1), "backend=ray: as configured"),
        ([], resources(address="10.0.0.1:6379"), "backend=ray: ray.address names a cluster"),
        (["strategy.isolate=true"], resources(cpus=1), "backend=ray: strategy.isolate=true keeps each client in a"),
        ([], resources(cpus=1), "backend=in_process: there is room for one client at a time"),
        ([], resources(cpus=3, client_cpus=2), "backend=in_process: there is room for one client at a time"),
        ([], resources(cpus=8, gpus=1, client_gpus=1.0), "backend=in_process: there is room for one client at a time"),
        ([], resources(cpus=8, gpus=1, client_gpus=0.6), "backend=in_process: there is room for one client at a time"),
        (["clients_per_round=1"], resources(), "backend=in_process: a round has one client"),
        ([], resources(cpus=8, gpus=2, client_gpus=1.0), None),
        ([], resources(cpus=8, gpus=1, client_gpus=0.5), None),
        ([], resources(cpus=2), None),
    ],
)
def test_the_configuration_and_the_machine_decide_first(keys, available, said):
    backend = backend_of(compose_settings(*keys), available)
    assert backend is None if said is None else str(backend).startswith(said)


@pytest.mark.parametrize(
    ("work", "at_once", "in_process"),
    [
        (Work(calls=12, seconds=5.0, model_bytes=45_000_000), 2, True),  # less than Ray takes to start
        (Work(calls=12, seconds=70.0, model_bytes=45_000_000), 2, False),
        (Work(calls=12, seconds=16.0, model_bytes=45_000_000), 64, False),
        (Work(calls=10_000, seconds=900.0, model_bytes=45_000_000), 64, True),  # messages cost more than training
        (Work(calls=10_000, seconds=900.0, model_bytes=100_000), 64, False),
    ],
)
def test_then_what_is_done_sooner(work, at_once, in_process):
    assert backend_for(work, at_once).in_process is in_process


def test_the_reason_says_both_times():
    said = str(backend_for(Work(calls=0, seconds=60.0, model_bytes=0), 2))
    assert said == (
        f"backend=ray: about 60 s for the clients one after another, {RAY_SECONDS + 30:.0f} s for 2 at once on Ray"
    )


@pytest.fixture
def experiment(tmp_path):
    keys = (*TINY, *SMALL_MODEL, "client.epochs=3", f"log_dir={tmp_path}")
    settings = compose_settings(*keys)
    return Experiment(settings, prepare_run(settings), RunFolder(settings.folder, settings))


def test_the_work_is_estimated_and_nothing_changes(experiment, monkeypatch):
    before = {name: tensor.clone() for name, tensor in experiment.model.state_dict().items()}
    threads, random_numbers = torch.get_num_threads(), torch.get_rng_state()
    now = iter((10.0, 10.8))
    monkeypatch.setattr("tracefl.experiment.backend.time.perf_counter", lambda: next(now))
    some = next(iter(experiment.prepared.data.clients.values()))
    work = estimate_work(experiment.settings, experiment.model, some, mean(experiment.num_examples.values()))
    assert work.calls == 2 * 3
    examples = sum(experiment.num_examples.values()) / len(experiment.num_examples)
    assert work.seconds == pytest.approx(6 * examples * 3 * 3 * 0.1)  # epochs, forward passes, seconds an example
    assert work.model_bytes == sum(tensor.nbytes for tensor in before.values())
    for name, tensor in experiment.model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), random_numbers)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (["ray.address=10.0.0.1:6379"], "backend=in_process and ray.address=10.0.0.1:6379, which needs Ray; give one"),
        (["strategy.isolate=true"], "backend=in_process and strategy.isolate=true, which needs Ray; give one"),
    ],
)
def test_what_needs_ray_is_refused_in_this_process(keys, message):
    with pytest.raises(ConfigError, match=message):
        compose_settings("backend=in_process", *keys)


def test_resources_are_those_of_the_configuration():
    found = read_resources(compose_settings("total_cpus=1", "ray.address=null"))
    assert found == Resources(1, 0, 1, 0.0, None)
    assert found.clients_here == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (["total_cpus=1"], "backend=in_process: there is room for one client at a time"),
        (["total_cpus=2"], "backend=in_process: about "),
    ],
)
def test_a_small_run_is_made_here_and_its_log_says_why(tmp_path, capsys, monkeypatch, keys, said):
    monkeypatch.setattr("tracefl.experiment.settings.cpus_here", lambda: 2)
    settings = compose_settings(*TINY, *SMALL_MODEL, "num_rounds=1", f"log_dir={tmp_path}", *keys)
    run_settings(settings)
    assert said in capsys.readouterr().out
    assert said in (settings.folder / "run.log").read_text()
