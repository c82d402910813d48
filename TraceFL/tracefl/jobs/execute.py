"""Runs jobs one after the other, each in its own process, and forwards the signals that ask for a stop."""

import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from types import FrameType
from typing import Any

from rich.console import Console

from tracefl.common.words import counted, duration
from tracefl.errors import RecordError, RunStopped
from tracefl.jobs.plan import Plan
from tracefl.jobs.status import read_states, summary
from tracefl.records.claim import refuse_if_claimed
from tracefl.records.status import read_run_state
from tracefl.report.console import say

MOST_FAILED = 100  # as an exit status; values above 125 have other meanings
INTERRUPTED = 130


def run_jobs(plans: Sequence[Plan], extra: Sequence[str], console: Console) -> int:
    """Run all jobs that are not complete; one that fails does not stop the rest.

    Args:
        plans: The runs, in order.
        extra: Overrides that the user adds to every command.
        console: Where to print progress.

    Returns:
        The exit status: how many failed (at most 100), 75 where a signal stopped a run that can be resumed, 130
        after Ctrl-C.
    """
    done: list[Plan] = []
    skipped: list[Plan] = []
    failed: list[Plan] = []
    with RunningProcess() as running:
        for number, plan in enumerate(plans, 1):
            head = f"[{number}/{len(plans)}] run {plan.job.index}:"
            reason = _reason_to_skip(plan)
            if reason is not None:
                skipped.append(plan)
                say(console, f"{head} {reason}: skipped")
                continue
            say(console, f"{head} {plan.job.command(extra)}")
            began = time.monotonic()
            status = running.run([sys.executable, *plan.job.arguments(extra)])
            took = duration(time.monotonic() - began)
            if status == 0:
                done.append(plan)
                say(console, f"{head} done in {took}")
            elif running.stop_signal is None and status != RunStopped.exit_status:
                failed.append(plan)
                reason = f"signal {-status}" if status < 0 else f"exit status {status}"
                say(console, f"{head} FAILED after {took} with {reason}")
            if status == RunStopped.exit_status or running.stop_signal is not None:
                say(console, f"stopped at run {plan.job.index}; the same command goes on")
                return INTERRUPTED if running.stop_signal == signal.SIGINT else RunStopped.exit_status
            if number < len(plans):
                say(console, summary(*read_states(plans)))
    names = ", ".join(str(plan.job.index) for plan in failed)
    say(
        console,
        f"{counted(len(plans), 'run')}: {len(done)} done, {len(skipped)} skipped, {len(failed)} failed"
        + (f" (runs {names})" if failed else ""),
    )
    return min(len(failed), MOST_FAILED)


def _reason_to_skip(plan: Plan) -> str | None:
    state = read_run_state(plan.folder, plan.settings.num_rounds).state
    if state == "done" and not plan.settings.overwrite:
        return "complete already"
    if state == "running":
        try:
            refuse_if_claimed(plan.folder)  # a run that was just killed on another node is not running
        except RecordError:
            return "another process is at it"
    return None


class RunningProcess:
    """One process at a time, which receives each signal exactly once, even one sent to the whole process group.

    Attributes:
        stop_signal: The last signal that asked for a stop; None before the first.
    """

    def __init__(self) -> None:
        self.stop_signal: int | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "RunningProcess":
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2, signal.SIGHUP):
            self._before[number] = signal.signal(number, self._pass_on)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def run(self, command: Sequence[str]) -> int:
        """Run a command to its end; returns its exit status, negative where a signal killed it."""
        # In a group of its own: Ctrl-C, and what `timeout` sends to a whole group, would reach it twice, and a second
        # signal ends a run at once.
        self._process = subprocess.Popen(command, process_group=0)
        try:
            if self.stop_signal is not None:  # it came before there was a process to pass it on to
                self._process.send_signal(self.stop_signal)
            return self._process.wait()
        finally:
            self._process = None

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.stop_signal = signal.SIGTERM if number == signal.SIGHUP else number
        if self._process is not None:
            self._process.send_signal(self.stop_signal)
