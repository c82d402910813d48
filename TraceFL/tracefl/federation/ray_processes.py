"""Ray's own processes here: its calls wait minutes for one that died, and for ever for one that stands still."""

import time
from typing import NoReturn

import psutil  # type: ignore[import-untyped]
import ray

from tracefl.errors import ClusterLostError

_LOOK_SECONDS = 1.0  # between two looks
_STOPPED_SECONDS = 20.0  # how long one of them may stand still


class RayProcesses:
    """Those that this process has started; none where it has joined a cluster."""

    def __init__(self) -> None:
        node = ray._private.worker._global_node
        started = {} if node is None else node.all_processes
        self._processes = {name: _process(info.process.pid) for name, infos in started.items() for info in infos}
        self._looked = 0.0
        self._stopped_since: dict[str, float] = {}

    def check(self) -> None:
        """Look, at most once a second.

        Raises:
            ClusterLostError: One of them has ended, or stands still. The others are ended: they would not answer.
        """
        now = time.monotonic()
        if now - self._looked < _LOOK_SECONDS:
            return
        self._looked = now
        for name, process in self._processes.items():
            state = _state(process)
            if state is None:
                self._lost(f"Ray's {name} has ended")
            if state == psutil.STATUS_STOPPED:
                if now - self._stopped_since.setdefault(name, now) > _STOPPED_SECONDS:
                    self._lost(f"Ray's {name} stands still (stopped by a signal)")
            else:
                self._stopped_since.pop(name, None)

    def kill(self) -> None:
        """End those that are left, at once; whatever waits for them in Ray then fails."""
        for process in self._processes.values():
            if process is not None and process.is_running():
                process.kill()

    def _lost(self, what: str) -> NoReturn:
        self.kill()
        raise ClusterLostError(f"{what}: the round is lost; resume=true goes on after the last one")


def _process(pid: int) -> psutil.Process | None:
    try:
        return psutil.Process(pid)
    except psutil.NoSuchProcess:
        return None


def _state(process: psutil.Process | None) -> str | None:
    """Return a process's state, None where it has ended."""
    try:
        state = None if process is None else str(process.status())
    except psutil.NoSuchProcess:
        return None
    return None if state == psutil.STATUS_ZOMBIE else state
