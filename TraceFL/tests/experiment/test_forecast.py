"""A forecast beside the run that it is of."""

import dataclasses

import pytest

from tests.helpers.configuration import TINY, compose_settings
from tracefl.errors import DataError
from tracefl.experiment.forecast import forecast_run
from tracefl.experiment.runner import run_settings
from tracefl.records.run import StoredRun

RUN = (*TINY, "backend=in_process", "provenance=off", "run_name=run")


@pytest.mark.slow
def test_the_disk_the_clients_and_the_state_are_those_of_the_run(tmp_path):
    settings = compose_settings(*RUN, f"log_dir={tmp_path}")
    before = forecast_run(settings)
    assert (before.rounds_done, before.is_complete) == (0, False)
    assert not list(tmp_path.iterdir())
    run_settings(settings)
    there = sum(file.stat().st_size for file in settings.folder.rglob("*") if file.is_file())
    assert before.work.kept_bytes == pytest.approx(there, rel=0.2)
    assert before.work.kept_bytes <= before.work.disk_bytes
    counts = StoredRun(settings.folder).label_counts
    assert before.work.examples == int(counts.sum())
    assert before.work.clients == int((counts.sum(dim=1) > 0).sum())
    after = forecast_run(settings)
    assert after.is_complete
    assert after.work is None
    (settings.folder / "results.json").unlink()  # as after a kill
    unfinished = forecast_run(dataclasses.replace(settings, resume=True))
    assert (unfinished.rounds_done, unfinished.goes_on, unfinished.work.training_seconds) == (2, True, 0)


@pytest.mark.parametrize(("keep", "kept"), [("none", 0), ("last", 5), ("all", 10)])
def test_memory_and_disk_in_models(tmp_path, keep, kept):
    # W: 2 rounds of 3 participants keep the clients', the old and the new model each, 5 W a round.
    settings = compose_settings(*RUN, f"log_dir={tmp_path}", f"store={keep}", "strategy=fedprox")
    work = forecast_run(settings).work
    whole = work.client_bytes / 5
    examples = 60 * 3 * settings.dataset.image_size**2
    assert work.server_bytes == 6 * whole + examples
    assert work.kept_bytes == kept * whole + examples
    assert whole == pytest.approx(4 * work.parameters, rel=0.01)  # and BatchNorm's statistics


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["dataset=mnist"], "is not on this machine; a run fetches it"),
        (["model=bert", "dataset=synthetic_text", "model.pretrained=true"], "the tokenizer of bert is not on this"),
    ],
)
def test_nothing_is_fetched(tmp_path, monkeypatch, overrides, words):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    forecast = forecast_run(compose_settings(f"log_dir={tmp_path / 'logs'}", *overrides))
    assert forecast.work is None
    assert words in forecast.missing


def test_a_folder_that_is_not_there_is_refused_as_in_the_run(tmp_path):
    settings = compose_settings("dataset=mnist", f"dataset.path={tmp_path}/none", f"log_dir={tmp_path}")
    with pytest.raises(DataError, match=r"dataset\.path"):
        forecast_run(settings)


def test_clients_that_flower_starts_are_not_guessed(tmp_path):
    forecast = forecast_run(compose_settings(*RUN, f"log_dir={tmp_path}"), started_by_flower=True)
    assert forecast.missing == "Flower starts the clients, which may hold data of their own"


def test_clients_that_all_are_left_out_are_refused(tmp_path):
    settings = compose_settings(*RUN, f"log_dir={tmp_path}")
    everybody = dataclasses.replace(settings, without=tuple(range(settings.num_clients)))
    with pytest.raises(DataError, match="without names all clients that hold a full batch"):
        forecast_run(everybody)
