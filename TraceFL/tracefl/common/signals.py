"""Signals that ask a run to stop between two rounds: SIGTERM, and SIGUSR2, SLURM's warning before the time limit."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGTERM, signal.SIGUSR2)


class StopRequest:
    """Whether a signal has asked the run to stop.

    The first one lets the round in hand finish; after it the signals do what they did before, so that a second one
    ends the run at once. Whoever listened before is told at the end: submitit then has SLURM requeue the job.
    """

    def __init__(self) -> None:
        self.signal: str | None = None
        """Name of the signal, None while there was none."""
        self._before: dict[signal.Signals, Any] = {}
        self._passed_over: Any = None

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():  # elsewhere Python cannot listen to signals
            self._before = {number: signal.getsignal(number) for number in _SIGNALS}
            self.listen()
        return self

    def listen(self) -> None:
        """Listen, or listen again: Ray, when it starts, puts a handler of its own in place that aborts the process."""
        for number in self._before:
            signal.signal(number, self._hear)

    def __exit__(self, *error: object) -> None:
        self._restore_handlers()
        if callable(self._passed_over):
            self._passed_over(signal.Signals[str(self.signal)], None)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.signal = signal.Signals(number).name
        self._passed_over = self._before.get(signal.Signals(number))
        self._restore_handlers()

    def _restore_handlers(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}


@contextlib.contextmanager
def block_sigusr2() -> Iterator[None]:
    """Let processes and threads started here never hear SIGUSR2, which would end them.

    SLURM may send its warning to every process of a job. Only this one is to act on it, and Ray's are to live until the
    round in hand is done. A blocked signal stays blocked in whatever is started meanwhile.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR2})
