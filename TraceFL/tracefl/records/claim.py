"""Who is writing into a run's folder: one process at a time, on whatever machine.

The writer leaves ``.claim`` in the folder and touches it every few seconds; whoever finds it untouched for longer takes
the folder over. That needs no locks, which network file systems may not have.
"""

import contextlib
import json
import logging
import os
import secrets
import socket
import threading
import time
from pathlib import Path
from typing import Any

from tracefl.common.inside import read_bytes
from tracefl.common.paths import remove
from tracefl.errors import RecordError, one_line, plain

log = logging.getLogger(__name__)

CLAIM = ".claim"
WORK = ".work"
"""Working files of a run, deleted at its end: the clients' prepared examples, and rounds that rules look back at."""

_MOST_BYTES = 1 << 16  # of a claim
_HEARTBEAT_SECONDS = 5.0
_SILENT_SECONDS = 3 * _HEARTBEAT_SECONDS  # without a heartbeat for so long, the writer is gone
_SILENT_ELSEWHERE_SECONDS = 120.0  # the same at a glance from another machine, whose clock may differ
_SETTLE_SECONDS = 1.0  # within which all that take over a silent claim at once have done so


class Claim:
    """A run's folder, held until ``release``.

    Args:
        folder: The run's folder; it exists.

    Raises:
        RecordError: Another process is writing there.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / CLAIM
        self._text = json.dumps({"machine": _machine(), "pid": os.getpid(), "token": secrets.token_hex(8)})
        while not (self._create() or self._replace()):
            pass
        self._released = threading.Event()
        self._heart = threading.Thread(target=self._beat, daemon=True)
        self._heart.start()

    @property
    def is_ours(self) -> bool:
        """No other process took the folder, as one may while this one is suspended."""
        return _read(self._path) == self._text

    def check(self) -> None:
        """Make sure that the folder is still ours.

        Raises:
            RecordError: Another process took it.
        """
        if not self.is_ours:
            raise RecordError(f"another process took over {self._path.parent} while this one was suspended", 1)

    def release(self) -> None:
        """Release the folder."""
        self._released.set()
        self._heart.join()
        if self.is_ours:
            self._path.unlink()

    def _create(self) -> bool:
        """Leave a claim where there is none."""
        try:
            with self._path.open("x") as file:  # only one of two processes can create it
                file.write(self._text)
        except FileExistsError:
            return False
        return True

    def _replace(self) -> bool:
        """Put our claim in the place of one whose writer is gone; of several that do so at once, the last one holds."""
        silent = _silent_claim(self._path)
        if silent is None or _read(self._path) != silent:
            return False
        draft = self._path.with_name(f"{CLAIM}.{secrets.token_hex(8)}")
        draft.write_text(self._text)
        draft.replace(self._path)
        time.sleep(_SETTLE_SECONDS)
        return self.is_ours

    def _beat(self) -> None:
        while not self._released.wait(_HEARTBEAT_SECONDS):
            with contextlib.suppress(OSError):  # a network file system may fail for a moment; the next beat is near
                if self.is_ours:
                    os.utime(self._path)


def is_claimed(folder: Path) -> bool:
    """Tell at a glance whether a process is writing there; right unless two machines' clocks differ by minutes."""
    path = folder / CLAIM
    text = _read(path)
    if text is None or _is_dead(text):
        return False
    here = _holder(text).get("machine") == _machine()
    silent = abs(time.time() - _touched(path) / 1e9)  # a file's time; far ahead, before the clock jumped
    return silent < (_SILENT_SECONDS if here else _SILENT_ELSEWHERE_SECONDS)


def refuse_if_claimed(folder: Path) -> None:
    """Wait long enough to see whether a process is writing there, at most 15 s.

    Raises:
        RecordError: One is.
    """
    _silent_claim(folder / CLAIM)


def _silent_claim(path: Path) -> str | None:
    """Return the claim of a writer that is gone, None without a claim; a living writer's is a RecordError."""
    text = _read(path)
    if text is None or _is_dead(text):
        return text
    seen, deadline = _touched(path), time.monotonic() + _SILENT_SECONDS
    while time.monotonic() < deadline and (now := _touched(path)):
        time.sleep(0.2)
        if now != seen:  # a heartbeat, by the file's own clock, so that machines' may differ
            holder = _holder(text)
            machine = plain(str(holder.get("machine") or "another-machine").split()[0])
            raise RecordError(
                f"{path.parent} is being written by process {holder.get('pid', '?')} on {machine}; wait for it or stop "
                "it, or set run_name to another"
            )
    return text


def drop_abandoned_work(folder: Path) -> None:
    """Delete the working files of a run that was killed, the clients' training examples among them.

    Of a run of this machine, once its process is gone; of one elsewhere, once it has been silent for minutes.
    """
    work = folder / WORK
    if not os.path.lexists(work):
        return
    text = _read(folder / CLAIM)
    here = text is not None and _holder(text).get("machine") == _machine()
    if text is None or _is_dead(text) or not (here or is_claimed(folder)):
        try:
            remove(work)
        except OSError as error:
            log.warning("%s holds training examples of a run that was killed, and stays: %s", work, one_line(error))


def _read(path: Path) -> str | None:
    try:
        return read_bytes(path.parent, path.name, _MOST_BYTES).decode(errors="replace")
    except (FileNotFoundError, NotADirectoryError):  # the folder is refused where it is made
        return None


def _holder(text: str) -> dict[str, Any]:
    """Return who wrote a claim: machine and process; nothing where its writer was killed while it wrote."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    known = isinstance(found, dict) and isinstance(found.get("machine"), str) and isinstance(found.get("pid"), int)
    return found if known and 0 < found["pid"] < 1 << 31 else {}


def _touched(path: Path) -> int:
    """Return when a file was last touched, in ns; 0 where there is none."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def _is_dead(text: str) -> bool:
    """Return whether a claim's writer is known to be gone: a process of this machine that is no more."""
    holder = _holder(text)
    if holder.get("machine") != _machine():
        return False
    try:
        os.kill(holder["pid"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass  # somebody else's process
    return False


def _machine() -> str:
    """Return the machine's name, and where there are containers the one whose process numbers a claim tells."""
    space = Path("/proc/self/ns/pid")
    return f"{socket.gethostname()} {space.readlink() if space.exists() else ''}".strip()
