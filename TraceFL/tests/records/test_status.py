import json

import pytest

from tests.helpers.finished import finish
from tests.helpers.random_rounds import result
from tracefl.errors import RunStopped, TraceFLError
from tracefl.records.claim import Claim
from tracefl.records.progress import Progress
from tracefl.records.status import StatusFile, read_ended_state, read_progress, read_run_state


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "config.yaml").write_text("")
    return tmp_path


def started(folder, num_rounds=4):
    progress = Progress(num_rounds)
    status = StatusFile(folder)
    status.run_started(progress)
    progress.round_started(1)
    progress.round_finished(1)
    status.round_finished(result(1))
    return status


def test_a_folder_that_is_not_there_is_to_do(tmp_path):
    state = read_run_state(tmp_path / "none", 7)
    assert (state.state, state.rounds_done, state.num_rounds) == ("to do", 0, 7)


def test_a_run_through_its_life(folder):
    assert read_run_state(folder, 4).state == "stopped"  # killed before it wrote anything
    claim = Claim(folder)
    assert read_run_state(folder, 4).state == "running"
    status = started(folder)
    state = read_run_state(folder, 4)
    assert (state.state, state.rounds_done, state.num_rounds) == ("running", 1, 4)
    assert state.seconds_left >= 0
    claim.release()
    assert read_run_state(folder, 4).state == "stopped"  # nobody writes any more
    for stop in (RunStopped("by SIGTERM"), KeyboardInterrupt()):
        status.ended(stop)
        assert read_ended_state(folder).state == "stopped"
    status.ended(TraceFLError("the disk\nis full"))
    failed = read_run_state(folder, 4)
    assert (failed.state, failed.error) == ("failed", "the disk is full")
    status.ended(None)
    finish(folder, 4)
    done = read_run_state(folder, 4)
    assert (done.state, done.seconds_left) == ("done", 0)


def test_wall_time_adds_up_over_sessions(folder):
    (folder / "status.json").write_text(
        json.dumps(
            {
                "state": "stopped",
                "rounds_done": 2,
                "num_rounds": 4,
                "seconds": 100.0,
                "seconds_a_round": 40.0,
                "updated": 0.0,
                "error": None,
            }
        )
    )
    assert read_run_state(folder, 4).seconds_left == 80.0
    progress = read_progress(folder, 2, 4)
    assert 100 <= progress.seconds < 101
    assert progress.seconds_left is None  # this session has done no round yet
    progress.round_started(3)
    progress.round_finished(3)
    assert 0 <= progress.seconds_left < 1
    assert read_progress(folder, 0, 4).seconds < 1  # a run begun anew forgets the one before


def test_a_damaged_status_is_no_status(folder):
    (folder / "status.json").write_text('{"state":')
    assert read_run_state(folder, 4).state == "stopped"


def test_how_a_run_ended_while_its_folder_is_still_held(folder):
    assert read_ended_state(folder) is None
    claim = Claim(folder)
    started(folder).ended(TraceFLError("no\nclient answered"))
    assert read_run_state(folder, 4).state == "running"
    ended = read_ended_state(folder)
    assert (ended.state, ended.rounds_done, ended.num_rounds) == ("failed", 1, 4)
    assert (ended.error, ended.seconds_left) == ("no client answered", None)
    claim.release()


def test_a_status_of_more_rounds_than_the_run_has_is_another_s(folder):
    started(folder, num_rounds=4).ended(RunStopped("by SIGTERM"))
    assert read_run_state(folder, 4).rounds_done == 1
    state = read_run_state(folder, 3)
    assert (state.state, state.rounds_done, state.num_rounds) == ("stopped", 0, 3)
