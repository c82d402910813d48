"""The folder that a run writes: its tables follow its rounds, and nobody else's run is touched."""

import os
import shlex
import shutil
from contextlib import closing
from pathlib import Path

import pytest

from tests.helpers.configuration import compose_settings
from tests.helpers.finished import whole_results
from tests.helpers.random_rounds import record, result
from tests.helpers.tables import read_csv
from tracefl.common.paths import remove
from tracefl.conf.cli import command_line
from tracefl.errors import RecordError
from tracefl.records.checksums import CheckedFiles
from tracefl.records.claim import Claim
from tracefl.records.folder import RunFolder
from tracefl.records.run import StoredRun


@pytest.fixture
def place(tmp_path):
    return tmp_path / "logs" / "run"


def folder_of(place, *overrides):
    return RunFolder(place, compose_settings("num_rounds=2", *overrides))


def begun(place, *overrides, resume=False):
    """Open the folder for a run; returns it and the rounds that are recorded."""
    folder = folder_of(place, *overrides)
    return folder, [each.server_round for each in folder.begin(resume)]


def write(place, rounds, *overrides, finish=True):
    folder, _ = begun(place, *overrides)
    for number in rounds:
        folder.commit(result(number), record(number))
    if finish:
        folder.finish(whole_results(rounds=len(rounds)))
    folder.close()


def rounds_in(table):
    return [row["round"] for row in read_csv(table)]


def test_a_round_is_in_every_table(place):
    write(place, [1, 2])
    assert rounds_in(place / "rounds.csv") == ["1", "2"]
    assert rounds_in(place / "provenance.csv") == ["1", "2"]  # an input each
    assert rounds_in(place / "suspects.csv") == ["1", "2"]
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
    left = ["SHA256SUMS", "config.yaml"]
    assert sorted(path.name for path in place.iterdir() if not path.name.startswith(".")) == left
    folder.close()
    assert sorted(path.name for path in place.iterdir()) == left  # the claim is given back


def test_another_configuration_and_other_folders_are_refused(place):
    write(place, [1, 2])
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
    write(place, [1, 2])
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


@pytest.mark.parametrize(
    ("keeps", "stored"),
    [
        ("last all", [1, 2]),
        ("none all", [2]),
        ("all last all", [2, 3]),
        ("all none all", [1, 3]),
        ("all last none", [2]),
    ],
)
def test_what_an_earlier_session_was_to_delete_is_not_missing(place, keeps, stored):
    """Each session records a round, and keeps as much as its command says; none deletes nothing that is there."""
    for number, keep in enumerate(keeps.split(), 1):
        folder, recorded = begun(place, "num_rounds=3", f"store={keep}", resume=number > 1)
        assert recorded == [*range(1, number)]
        folder.commit(result(number), record(number))
        folder.close()
    rounds = folder_of(place, "num_rounds=3", f"store={keep}").rounds
    assert rounds.stored_rounds() == stored
    kept = [n for n in range(1, number + 1) if rounds.has_kept(n)]
    assert kept == stored


def test_weights_that_were_to_stay_and_are_gone_are_missing(place):
    write(place, [1], "store=all", finish=False)
    shutil.rmtree(place / "rounds/0001/weights")
    folder, recorded = begun(place, "store=all", resume=True)
    folder.close()
    assert recorded == [1]
    assert folder.rounds.has_kept(1)
    assert folder.rounds.stored_rounds() == []


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


@pytest.mark.parametrize("damage", ["results", "round"])
def test_a_run_that_only_says_that_it_is_complete_is_not(place, damage):
    """Its command is refused, and with resume=true it is finished again from what is whole."""
    write(place, [1, 2], "store=all")
    if damage == "results":
        (place / "results.json").write_text("{}")
    else:
        shutil.rmtree(place / "rounds" / "0002")
    words = "results.json is damaged" if damage == "results" else "round 2 is missing"
    with pytest.raises(RecordError, match=f"{words}.*; resume=true goes on from the rounds that are whole"):
        _ = folder_of(place).is_complete
    assert (place / "rounds" / "0001").exists()  # nothing was cleared
    assert folder_of(place, "overwrite=true").is_complete
    folder, recorded = begun(place, "resume=true", "store=all", resume=True)
    folder.close()
    assert recorded == ([1, 2] if damage == "results" else [1])
    assert not (place / "results.json").exists()


def test_every_file_that_is_written_is_whole_at_any_moment(place, monkeypatch):
    """Before each change of a file, and after: what is there is what SHA256SUMS says, of before or of after."""
    looks = []

    def look(*_):
        files = CheckedFiles(place)
        if not (place / "SHA256SUMS").exists():
            return
        names = [name for name in files.checksums if (place / name).exists()]
        for name in names:
            files.check(name)
        looks.append(len(names))

    rename = os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: (look(), rename(a, b), look())[1])
    monkeypatch.setattr(Path, "replace", lambda a, b: (look(), rename(a, b), look())[1])
    folder, _ = begun(place)
    look()
    for number in (1, 2):
        folder.commit(result(number), record(number))
        look()
    folder.close()
    folder, recorded = begun(place, "resume=true", resume=True)
    assert recorded == [1, 2]
    folder.finish(whole_results(rounds=2))
    folder.close()
    look()
    assert looks[-1] == 7  # of two rounds, three tables, the configuration and the results
    lines = (place / "SHA256SUMS").read_text().splitlines()
    assert len(lines) == looks[-1]  # and nothing is being replaced any more


@pytest.mark.parametrize("name", ["rounds", "rounds/0001", "run.log", "wandb"])
def test_nothing_is_written_or_deleted_through_a_link(place, tmp_path, name):
    write(place, [1, 2], finish=False)
    away = tmp_path / "away"
    away.mkdir()
    (away / "precious").write_text("")
    remove(place / name)
    (place / name).symlink_to(away)
    with pytest.raises(RecordError, match="is a link, a pipe or the like, and a run leaves none"):
        begun(place, "resume=true", resume=True)
    assert (away / "precious").exists()


def test_training_examples_of_a_killed_run_are_deleted_by_whatever_opens_it_next(place, monkeypatch):
    def killed():
        write(place, [1, 2])
        (place / ".work").mkdir()
        (place / ".work" / "client-0.safetensors").write_text("examples")

    killed()
    StoredRun(place)
    assert not (place / ".work").exists()  # no claim: its writer gave it back, or never had one
    shutil.rmtree(place)
    killed()
    remove(place / ".work")
    (place / ".work").symlink_to(place / "rounds")
    StoredRun(place)
    assert not (place / ".work").is_symlink()
    assert (place / "rounds" / "0002").exists()  # what it led to stays
    shutil.rmtree(place)
    killed()
    folder_of(place)
    assert not (place / ".work").exists()
    shutil.rmtree(place)
    killed()
    claim = Claim(place)
    StoredRun(place)
    assert (place / ".work").exists()  # of a run that lives
    monkeypatch.setattr("os.kill", raising(ProcessLookupError()))
    StoredRun(place)
    assert not (place / ".work").exists()  # its process is gone, however fresh its claim
    claim.release()


def raising(error):
    def fail(*_):
        raise error

    return fail
