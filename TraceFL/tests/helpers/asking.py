"""Commands asked about a run's folder in this process, each within a time and an amount of memory."""

import io
import json
import os
import re
import resource
import shutil
import signal
import sys
import time
import traceback
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

MOST_CPU_SECONDS = 20.0  # of a command
LOOK_SECONDS = 2.0  # between two looks at it
IDLE_LOOKS = 15  # in a row without any CPU time, after which a command waits for ever
MEMORY_BYTES = 2 << 30  # beyond what the process has


class Hung(BaseException):
    """A command took too long; no command catches it."""


@dataclass(frozen=True)
class Reply:
    """What a command came to.

    Attributes:
        status: Its exit status; None where it ended with a traceback, or not at all.
        answer: What it found, without what differs from call to call; None without an answer.
        said: What it printed beside.
        fault: Why there is no status.
    """

    status: int | None
    answer: object = None
    said: str = ""
    fault: str = ""


COMMANDS = {
    "trace": ("tracefl.trace", "{run} --json"),
    "input": ("tracefl.trace", "{run} input=1 --json"),
    "counterfactual": ("tracefl.counterfactual", "{run} --json"),
    "ledger": ("tracefl.ledger", "{run} --json csv={out}/ledger.csv png={out}/ledger.png"),
    "report": ("tracefl.report.__main__", "{run} html={out}/report.html"),
    "collect": ("tracefl.collect", "{runs} --json csv={out}/collected.csv"),
    "figures": ("tracefl.visualize", "{above} exp={exp} figure=2 --json out={out}"),
    "replay": ("tracefl.replay", "{run} without=1 --json csv={out}/replay.csv png={out}/replay.png"),
    "verify": ("tracefl.verify", "{run} --json"),
}
"""Name to the module that asks, and its arguments."""


def ask(command, run, out, *more):
    """Ask a run's folder.

    Args:
        command: One of ``COMMANDS``.
        run: The run's folder, alone in the folder that it lies in.
        out: A folder for what the command writes; emptied first.
        more: Arguments beside.
    """
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    module, line = COMMANDS[command]
    places = {"run": run, "runs": run.parent, "above": run.parent.parent, "exp": run.parent.name, "out": out}
    arguments = [word.format(**places) for word in line.split()]
    return _call(
        import_module(module).main, [*arguments, *more], run, out / "report.html" if command == "report" else None
    )


def _call(main, arguments, run, page):
    """Call a program; ``page`` is the file with its answer, None where it prints it."""
    before, sys.argv = sys.argv, ["tracefl", *arguments]
    out, err = io.StringIO(), io.StringIO()
    status, fault = 0, ""
    try:
        with redirect_stdout(out), redirect_stderr(err), _within(MEMORY_BYTES):
            main()
    except SystemExit as stop:
        status = stop.code or 0
    except Hung:
        status, fault = None, "hung"
    except BaseException:  # noqa: BLE001 - what a user would see as a traceback
        status, fault = None, traceback.format_exc()
    finally:
        sys.argv = before
    text = page.read_text() if page is not None and status == 0 else out.getvalue()
    return Reply(status, _plain(text, run) if status in (0, 1) else None, err.getvalue(), fault)


def _plain(text, run):
    """Return an answer without the times that it tells and the folder's name."""
    try:
        return _untimed(json.loads(text.replace(str(run.parent), "")))
    except ValueError:
        return re.sub(r"[\d.]+ ?(s|ms|seconds)\b", "", text.replace(str(run.parent), ""))


def _untimed(value):
    if isinstance(value, dict):
        return {k: _untimed(v) for k, v in value.items() if "seconds" not in k and k != "files"}
    return [_untimed(v) for v in value] if isinstance(value, list) else value


@contextmanager
def _within(more_bytes):
    began = last = time.process_time()
    idle = 0

    def look(*_):  # by CPU time: a busy machine makes no command hang
        nonlocal last, idle
        now = time.process_time()
        idle, last = (idle + 1 if now - last < 0.01 else 0), now
        if now - began > MOST_CPU_SECONDS or idle >= IDLE_LOOKS:
            raise Hung

    was = signal.signal(signal.SIGALRM, look)
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    held = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGESIZE")
    resource.setrlimit(resource.RLIMIT_AS, (held + more_bytes, hard))
    signal.setitimer(signal.ITIMER_REAL, LOOK_SECONDS, LOOK_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, was)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
