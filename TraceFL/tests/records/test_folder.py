"""The folder that a run writes: its tables follow its rounds, and nobody else's run is touched."""

import shlex
from contextlib import closing

import pytest

from tests.helpers.configuration import compose_settings
from tests.helpers.random_rounds import record, result
from tests.helpers.tables import read_csv
from tracefl.conf.cli import command_line
from tracefl.errors import RecordError
from tracefl.records.folder import RunFolder
from tracefl.records.run import StoredRun


@pytest.fixture
def place(tmp_path):
    return tmp_path / "logs" / "run"


def folder_of(place, *overrides):
    return RunFolder(place, compose_settings("num_rounds=3", *overrides))


def begun(place, *overrides, resume=False):
    """Open the folder for a run; returns it and the rounds that are recorded."""
    folder = folder_of(place, *overrides)
    return folder, [each.server_round for each in folder.begin(resume)]


def write(place, rounds, *overrides, finish=True):
    folder, _ = begun(place, *overrides)
    for number in rounds:
        folder.commit(result(number), record(number))
    if finish:
        folder.finish({"rounds": len(rounds)})
    folder.close()


def rounds_in(table):
    return [row["round"] for row in read_csv(table)]


def test_a_round_is_in_every_table(place):
    write(place, [1, 2])
    assert rounds_in(place / "rounds.csv") == ["1", "2"]
    assert rounds_in(place / "provenance.csv") == ["1", "2"]  # an input each
    assert rounds_in(place / "suspects.csv") == ["1", "1"]  # as random_rounds.SUSPECTS has it
    assert not (place / "mitigation.csv").exists()
    assert read_csv(place / "suspects.csv")[0]["rule"] == "provenance"
    folder = folder_of(place)
    assert folder.is_complete
    assert list(folder.rounds.results()) == [result(1), result(2)]


def test_tables_are_written_anew_from_the_rounds_when_a_run_goes_on(place):
    write(place, [1, 2], finish=False)
    whole = (place / "rounds.csv").read_text(), (place / "provenance.csv").read_text()
    (place / "rounds.csv").write_text("half a li")
    (place / "provenance.csv").unlink()
    folder, recorded = begun(place, resume=True)
    folder.close()
    assert recorded == [1, 2]
    assert ((place / "rounds.csv").read_text(), (place / "provenance.csv").read_text()) == whole


def test_an_unfinished_run_is_cleared_unless_it_goes_on(place):
    write(place, [1, 2], finish=False)
    folder, recorded = begun(place)
    assert recorded == []
    assert sorted(path.name for path in place.iterdir() if not path.name.startswith(".")) == ["config.yaml"]
    folder.close()
    assert [path.name for path in place.iterdir()] == ["config.yaml"]  # the claim is given back


def test_another_configuration_and_other_folders_are_refused(place):
    write(place, [1])
    with pytest.raises(RecordError, match=r"another configuration \(differs in seed\)"):
        folder_of(place, "seed=7")
    folder_of(place, "total_cpus=1")  # where it runs is no part of what it is
    place.with_name("file").write_text("")
    with pytest.raises(RecordError, match="is a file; set run_name or exp_key to another"):
        folder_of(place.with_name("file"))
    place.with_name("other").mkdir()
    place.with_name("other").joinpath("letter.txt").write_text("")
    with pytest.raises(RecordError, match="exists and is no run's folder"):
        folder_of(place.with_name("other"))


def test_a_run_that_another_process_completed_meanwhile_is_left(place):
    folder = folder_of(place)
    write(place, [1])
    with pytest.raises(RecordError, match="was completed by another process meanwhile"):
        folder.begin(resume=False)
    assert (place / "results.json").exists()


def test_a_disk_that_is_too_small_is_refused(place):
    folder_of(place).check_space(1)
    with pytest.raises(RecordError, match="the run needs .* of disk and .* keep less: store=last"):
        folder_of(place).check_space(10**18)


def test_keeping_less_than_before_is_said(place, caplog):
    write(place, [1, 2], "store=all", finish=False)
    folder, _ = begun(place, "store=last", resume=True)
    folder.close()
    assert "store.keep=last, and the run has kept all so far: weights of earlier rounds are deleted" in caplog.text


def test_the_command_that_was_typed_is_kept(tmp_path):
    settings = compose_settings(f"log_dir={tmp_path}", "run_name=run")
    typed = ["model=gpt", "resume=true", "overwrite=true", "dataset.path=/my data/${dataset.name}"]
    with closing(RunFolder(settings.folder, settings, command_line(typed))) as folder:
        folder.begin(resume=False)
    command = StoredRun(settings.folder).command
    assert shlex.split(command) == ["tracefl", "run", typed[0], typed[3]]
    with closing(RunFolder(settings.folder, settings)) as folder:
        folder.begin(resume=False)  # from Python
    assert StoredRun(settings.folder).command is None
