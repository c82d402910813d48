"""Signals that ask a run to stop: SIGTERM and SIGUSR2, SLURM's warning, between two rounds; SIGINT (Ctrl-C) at once."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGTERM, signal.SIGUSR2)


class StopRequest:
    """Whether a signal has asked the run to stop.

    The first signal lets the current round finish and restores the handlers that were there before, so that a second
    one ends the run at once. The handler it replaced is called at the end: submitit's has SLURM requeue the job.
    """

    def __init__(self) -> None:
        self.signal: str | None = None
        """The signal's name; None before there is one."""
        self._before: dict[signal.Signals, Any] = {}
        self._replaced_handler: Any = None

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():  # Python handles signals in no other
            self._before = {number: signal.signal(number, self._receive) for number in _SIGNALS}
        return self

    def __exit__(self, *error: object) -> None:
        self._restore_handlers()
        if callable(self._replaced_handler):
            self._replaced_handler(signal.Signals[str(self.signal)], None)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.signal = signal.Signals(number).name
        self._replaced_handler = self._before.get(signal.Signals(number))
        self._restore_handlers()

    def _restore_handlers(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}


@contextlib.contextmanager
def block_sigusr2() -> Iterator[None]:
    """Block SIGUSR2 in the processes and threads started inside the block: it would end them.

    SLURM may send its warning to every process of a job. Only this one acts on it; Ray's processes must live until the
    current round is done. A blocked signal stays blocked in whatever is started meanwhile.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR2})
