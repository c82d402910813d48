"""One session of a run, with clients that do not train."""

from threading import Event

import pytest

from tests.helpers.configuration import TINY, compose_settings
from tests.helpers.plans import ScriptedFederation
from tracefl.common.signals import StopRequest
from tracefl.errors import RecordError, RunStopped
from tracefl.experiment.experiment import Experiment
from tracefl.experiment.preparation import prepare_run
from tracefl.experiment.session import run_session
from tracefl.records.folder import RunFolder
from tracefl.records.observer import Observer
from tracefl.records.progress import Progress


class Events(Observer):
    """Keeps what it is told, and may ask the run to stop in a round."""

    def __init__(self, stop, stop_in=None):
        self.events, self._stop, self._stop_in = [], stop, stop_in

    def run_started(self, progress):
        self.events.append(("run", progress.rounds_done))

    def round_started(self, server_round, clients):
        self.events.append(("started", server_round, clients))
        if server_round == self._stop_in:
            self._stop.signal = "SIGTERM"

    def round_finished(self, result):
        self.events.append(("finished", result.server_round))


@pytest.fixture
def session(tmp_path):
    """Run a session; returns its rounds, its events and the folder."""

    def run(stop_in=None, resume=False):
        settings = compose_settings(*TINY, f"log_dir={tmp_path}", "run_name=run", "provenance=off")
        folder = RunFolder(settings.folder, settings)
        experiment = Experiment(settings, prepare_run(settings), folder)
        recorded, stop = folder.begin(resume), StopRequest()
        events = Events(stop, stop_in)
        try:
            return (
                run_session(
                    experiment,
                    ScriptedFederation(("0", "2"), 2),
                    recorded,
                    Progress(settings.num_rounds, len(recorded)),
                    (events,),
                    stop,
                ),
                events.events,
            )
        finally:
            folder.close()

    return run


def test_the_observers_follow_the_rounds_in_their_order(session):
    rounds, events = session()
    assert [result.server_round for result in rounds] == [1, 2]
    clients = ("0", "2")
    assert [event for event in events if event[0] != "finished"] == [
        ("run", 0),
        ("started", 1, clients),
        ("started", 2, clients),
    ]
    assert [event for event in events if event[0] == "finished"] == [("finished", 1), ("finished", 2)]


def test_a_round_is_announced_once_it_is_on_the_disk_while_the_next_one_trains(session, monkeypatch, tmp_path):
    told = []
    second_began, commit = Event(), RunFolder.commit

    def commit_late(folder, result, record):
        second_began.wait(timeout=10)
        commit(folder, result, record)
        told.append(("recorded", result.server_round))

    def announce(events, result):
        in_table = (tmp_path / "default" / "run" / "rounds.csv").read_text().splitlines()
        told.append(("announced", result.server_round, len(in_table) - 1))

    def begin(events, server_round, clients):
        told.append(("began", server_round))
        if server_round == 2:
            second_began.set()

    monkeypatch.setattr(RunFolder, "commit", commit_late)
    monkeypatch.setattr(Events, "round_finished", announce)
    monkeypatch.setattr(Events, "round_started", begin)
    session()
    assert told[:2] == [("began", 1), ("began", 2)]
    assert told[2:] == [("recorded", 1), ("announced", 1, 1), ("recorded", 2), ("announced", 2, 2)]


def test_a_signal_stops_the_run_once_the_round_is_on_the_disk(session, tmp_path):
    with pytest.raises(RunStopped, match="stopped by SIGTERM after round 1 of 2; the same command with resume=true"):
        session(stop_in=1)
    assert (tmp_path / "default" / "run" / "rounds" / "0001" / "round.json").exists()
    rounds, events = session(resume=True)
    assert [result.server_round for result in rounds] == [1, 2]
    assert events[:2] == [("run", 1), ("started", 2, ("0", "2"))]


def test_a_round_that_cannot_be_written_ends_the_run(session, monkeypatch):
    def refuse(folder, result, record):
        raise RecordError("the disk is full")

    monkeypatch.setattr(RunFolder, "commit", refuse)
    with pytest.raises(RecordError, match="the disk is full"):
        session()
