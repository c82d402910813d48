"""Who is writing into a run's folder: one process at a time, on whatever machine.

The writer leaves ``.claim`` in the folder and touches it every few seconds, so that others can tell a living writer
from one that was killed, without locks, which network file systems may not have.
"""

import json
import os
import secrets
import socket
import threading
import time
from pathlib import Path

from tracefl.errors import RecordError

CLAIM = ".claim"
_HEARTBEAT_SECONDS = 5.0
_SILENT_SECONDS = 3 * _HEARTBEAT_SECONDS  # without a heartbeat for so long, the writer is gone
_SILENT_ELSEWHERE_SECONDS = 120.0  # the same for a glance from another machine, whose clock may differ


class Claim:
    """A run's folder, held until ``release``.

    Args:
        folder: The run's folder; it exists.

    Raises:
        RecordError: Another process is writing there.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / CLAIM
        self._token = {"machine": _machine(), "pid": os.getpid(), "token": secrets.token_hex(8)}
        while True:
            try:
                with self._path.open("x") as file:  # only one of two processes can create it
                    file.write(json.dumps(self._token))
                break
            except FileExistsError:
                refuse_if_claimed(folder)
                self._path.unlink(missing_ok=True)
        self._released = threading.Event()
        self._heart = threading.Thread(target=self._beat, daemon=True)
        self._heart.start()

    def check(self) -> None:
        """Make sure that the folder is still ours.

        Raises:
            RecordError: Another process took it, because this one was suspended for too long.
        """
        if _read(self._path) != self._token:
            raise RecordError(f"another process took over {self._path.parent} while this one stood still", 1)

    def release(self) -> None:
        """Let go of the folder."""
        self._released.set()
        self._heart.join()
        if _read(self._path) == self._token:
            self._path.unlink()

    def _beat(self) -> None:
        while not self._released.wait(_HEARTBEAT_SECONDS):
            if _read(self._path) != self._token:
                return  # check() says so before the next round is written
            os.utime(self._path)


def is_claimed(folder: Path) -> bool:
    """Tell at a glance whether a process is writing there; right unless two machines' clocks differ by minutes."""
    path = folder / CLAIM
    holder = _read(path)
    if not holder or _is_dead_here(holder):
        return False
    limit = _SILENT_SECONDS if holder["machine"] == _machine() else _SILENT_ELSEWHERE_SECONDS
    return time.time() - _touched(path) / 1e9 < limit


def refuse_if_claimed(folder: Path) -> None:
    """Wait long enough to see whether a process is writing there.

    Raises:
        RecordError: One is.
    """
    path = folder / CLAIM
    holder = _read(path)
    if not holder or _is_dead_here(holder):
        return
    seen, deadline = _touched(path), time.monotonic() + _SILENT_SECONDS
    while time.monotonic() < deadline:
        time.sleep(0.2)
        if _touched(path) not in (seen, 0):  # a heartbeat; by its own file's clock, so that machines may differ
            raise RecordError(
                f"{folder} is being written by process {holder['pid']} on {str(holder['machine']).split()[0]}; "
                "wait for it or stop it, or set run_name to another"
            )


def _read(path: Path) -> dict[str, object] | None:
    """Return who holds the claim, None where nobody does or its writer was killed while it wrote."""
    try:
        holder = json.loads(path.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    return holder if isinstance(holder, dict) and {"machine", "pid"} <= set(holder) else None


def _touched(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def _is_dead_here(holder: dict[str, object]) -> bool:
    if holder["machine"] != _machine():
        return False
    try:
        os.kill(int(str(holder["pid"])), 0)
    except PermissionError:  # somebody else's, and alive
        return False
    except ProcessLookupError:
        return True
    return False


def _machine() -> str:
    """Return the machine's name and, where there are containers, the space that its process numbers count in."""
    space = Path("/proc/self/ns/pid")
    return f"{socket.gethostname()} {space.readlink() if space.exists() else ''}".strip()
