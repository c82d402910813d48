"""A run's state: ``status.json`` in its folder, written by the run and read by other processes."""

import json
import logging
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from tracefl.common.inside import is_there, read_bytes
from tracefl.common.text_files import write_atomically
from tracefl.errors import RecordError, RunStopped, one_line
from tracefl.records.checksums import CheckedFiles
from tracefl.records.claim import is_claimed
from tracefl.records.observer import Observer
from tracefl.records.progress import Progress
from tracefl.records.reading import RESULTS, check_rounds, read_results
from tracefl.records.result import RoundResult

log = logging.getLogger(__name__)

State = Literal["done", "running", "failed", "stopped", "to do"]
_STATUS = "status.json"
_MOST_BYTES = 1 << 24


@dataclass(frozen=True)
class RunState:
    """A run's state, by its folder.

    Attributes:
        state: ``stopped`` is a run that was interrupted or killed: ``resume=true`` goes on with it.
        rounds_done: Rounds that are recorded.
        num_rounds: Rounds of the run.
        seconds: Wall time so far, of all sessions; None where nothing has run.
        seconds_left: Estimate; None where none can be made.
        error: Why it failed, one line; None otherwise.
    """

    state: State
    rounds_done: int
    num_rounds: int
    seconds: float | None = None
    seconds_left: float | None = None
    error: str | None = None


@dataclass(frozen=True)
class _Status:
    """What is written; ``updated`` is in seconds since 1970."""

    state: State
    rounds_done: int
    num_rounds: int
    seconds: float
    seconds_a_round: float | None
    updated: float
    error: str | None = None


def read_run_state(folder: Path, num_rounds: int) -> RunState:
    """Return the state of the run in a folder; without a folder it is still to do.

    A run whose results.json is damaged, or of which a round is missing, has failed.
    """
    if not is_there(folder, "config.yaml"):
        return RunState("to do", 0, num_rounds)
    status = _read(folder)
    if status is not None and max(status.rounds_done, status.num_rounds) > num_rounds:
        status = None  # another run's
    if is_there(folder, RESULTS):
        try:
            check_rounds(CheckedFiles(folder), num_rounds)
            return RunState("done", num_rounds, num_rounds, read_results(folder, num_rounds)["seconds"], 0.0)
        except RecordError as error:
            return RunState("failed", 0, num_rounds, error=one_line(error))
    if status is None:  # killed before its first round began
        return RunState("running" if is_claimed(folder) else "stopped", 0, num_rounds)
    a_round = status.seconds_a_round
    left = None if a_round is None else a_round * (status.num_rounds - status.rounds_done)
    if is_claimed(folder):
        waited = max(time.time() - status.updated, 0.0)  # of another process; the clock may have jumped
        left = None if left is None else max(left - waited, 0.0)
        return RunState("running", status.rounds_done, status.num_rounds, status.seconds + waited, left)
    state: State = "failed" if status.state == "failed" else "stopped"
    return RunState(state, status.rounds_done, status.num_rounds, status.seconds, left, status.error)


def read_ended_state(folder: Path) -> RunState | None:
    """Return how a run ended in this process, which still holds its folder; None where that is unknown."""
    status = _read(folder)
    if status is None:
        return None
    return RunState(status.state, status.rounds_done, status.num_rounds, status.seconds, None, status.error)


class StatusFile(Observer):
    """Keeps ``status.json`` in a run's folder up to date."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._progress = Progress(0)

    def run_started(self, progress: Progress) -> None:
        """Record that the run is going."""
        self._progress = progress
        self._write("running")

    def round_finished(self, result: RoundResult) -> None:
        """Record the progress."""
        del result
        self._write("running")

    def ended(self, error: BaseException | None) -> None:
        """Record how the run ended."""
        if error is None:
            self._write("done")
        elif isinstance(error, RunStopped | KeyboardInterrupt):
            self._write("stopped")
        else:
            self._write("failed", one_line(error) or type(error).__name__)

    def _write(self, state: State, error: str | None = None) -> None:
        p, now = self._progress, time.time()  # read by other processes
        status = _Status(state, p.rounds_done, p.num_rounds, p.seconds, p.seconds_a_round, now, error)
        try:
            write_atomically(self._folder / _STATUS, json.dumps(asdict(status), indent=1) + "\n")
        except OSError as failure:  # the rounds are on disk; this file only describes them
            log.warning("%s could not be written: %s", _STATUS, failure)


def read_progress(folder: Path, rounds_done: int, num_rounds: int) -> Progress:
    """Return the progress that a resumed run starts with."""
    before = _read(folder) if rounds_done else None
    return Progress(num_rounds, rounds_done, before.seconds if before else 0.0)


def _read(folder: Path) -> _Status | None:
    from tracefl.records.schema import StatusFile, parse

    try:
        return _Status(**parse(StatusFile, read_bytes(folder, _STATUS, _MOST_BYTES), folder / _STATUS))
    except (OSError, RecordError):
        return None  # as unknown as a run that was killed before it wrote one
