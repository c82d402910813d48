"""Who is writing into a run's folder: one process at a time, on whatever machine.

The writer leaves ``.claim`` in the folder and touches it every few seconds, so that others can tell a living writer
from one that was killed, without locks, which network file systems may not have.
"""

import contextlib
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
        while not self._take():
            silent = _silent_claim(folder)
            if silent is not None:
                self._displace(silent)
        self._released = threading.Event()
        self._heart = threading.Thread(target=self._beat, daemon=True)
        self._heart.start()

    @property
    def is_ours(self) -> bool:
        """No other process took the folder, as one may while this one is suspended."""
        return _holder(_text(self._path) or "") == self._token

    def check(self) -> None:
        """Make sure that the folder is still ours.

        Raises:
            RecordError: Another process took it.
        """
        if not self.is_ours:
            raise RecordError(f"another process took over {self._path.parent} while this one stood still", 1)

    def release(self) -> None:
        """Let go of the folder."""
        self._released.set()
        self._heart.join()
        if self.is_ours:
            self._path.unlink()

    def _take(self) -> bool:
        try:
            with self._path.open("x") as file:  # only one of two processes can create it
                file.write(json.dumps(self._token))
        except FileExistsError:
            return False
        return True

    def _displace(self, silent: str) -> None:
        """Remove a silent claim; one that has taken its place meanwhile is put back."""
        aside = self._path.with_name(f"{CLAIM}.{self._token['token']}")
        try:
            self._path.rename(aside)
        except FileNotFoundError:
            return
        found = aside.read_text()
        if found != silent:
            with contextlib.suppress(FileExistsError), self._path.open("x") as file:
                file.write(found)
        aside.unlink()

    def _beat(self) -> None:
        while not self._released.wait(_HEARTBEAT_SECONDS):
            with contextlib.suppress(OSError):  # a network file system may fail for a moment; the next beat is near
                if self.is_ours:
                    os.utime(self._path)


def is_claimed(folder: Path) -> bool:
    """Tell at a glance whether a process is writing there; right unless two machines' clocks differ by minutes."""
    path = folder / CLAIM
    text = _text(path)
    if text is None or _is_dead_here(text):
        return False
    here = _holder(text).get("machine") == _machine()
    limit = _SILENT_SECONDS if here else _SILENT_ELSEWHERE_SECONDS
    return time.time() - _touched(path) / 1e9 < limit


def refuse_if_claimed(folder: Path) -> None:
    """Wait long enough to see whether a process is writing there, at most 15 s.

    Raises:
        RecordError: One is.
    """
    _silent_claim(folder)


def _silent_claim(folder: Path) -> str | None:
    """Return the claim of a writer that is gone, None where there is no claim."""
    path = folder / CLAIM
    text = _text(path)
    if text is None or _is_dead_here(text):
        return text
    seen, deadline = _touched(path), time.monotonic() + _SILENT_SECONDS
    while time.monotonic() < deadline:
        time.sleep(0.2)
        now = _touched(path)
        if now == 0:  # released
            return None
        if now != seen:  # a heartbeat, by its own file's clock, so that machines may differ
            holder = _holder(text)
            raise RecordError(
                f"{folder} is being written by process {holder.get('pid', '?')} on "
                f"{str(holder.get('machine', 'another machine')).split()[0]}; wait for it or stop it, or set run_name "
                "to another"
            )
    return text


def _text(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace")
    except FileNotFoundError:
        return None


def _holder(text: str) -> dict[str, object]:
    """Return who wrote a claim, nothing where its writer was killed while it wrote."""
    try:
        holder = json.loads(text)
    except json.JSONDecodeError:
        return {}
    return holder if isinstance(holder, dict) else {}


def _touched(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def _is_dead_here(text: str) -> bool:
    """Return whether a claim's writer was a process of this machine that is no more."""
    holder = _holder(text)
    if holder.get("machine") != _machine():
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
