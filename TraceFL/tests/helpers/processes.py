"""The machine's processes, as ps lists them, and waiting for them."""

import subprocess
import time

PATIENCE = 900  # seconds: only for what hangs, as a busy machine may take minutes for what is done in seconds


def wait_until(happened, said=lambda: ""):
    """Wait until ``happened()``; what ``said()`` then is the message of a wait that is given up."""
    deadline = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < deadline, said()
        time.sleep(0.05)


def processes():
    """Return all processes that live: (pid, parent, name)."""
    listed = subprocess.run(["ps", "-eo", "pid=,ppid=,stat=,comm="], capture_output=True, text=True, check=True).stdout
    lines = (line.split(maxsplit=3) for line in listed.splitlines())
    return [(int(pid), int(parent), name) for pid, parent, state, name in lines if not state.startswith("Z")]


def descendants(pid):
    """Return the processes below one, by pid, with their names."""
    found, everything = {}, processes()
    todo = [pid]
    while todo:
        parent = todo.pop()
        children = {child: name for child, its_parent, name in everything if its_parent == parent}
        found |= children
        todo += children
    return found
