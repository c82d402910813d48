"""Commands in processes of their own, forked from one that has imported everything: a start costs no imports."""

import multiprocessing
import os
import signal
import sys

from tests.helpers.processes import PATIENCE

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tracefl.jobs.preload"])


class ForkedMain:
    """``python -m tracefl.main`` in a process group of its own, as far as anybody can see.

    Args:
        arguments: Of the command line.
        cwd: Folder in which it runs.
        output: File for what it prints.
        errors: File for what it prints as errors; None: the same.
        env: Its environment; None: this process's.
    """

    def __init__(self, *arguments, cwd, output, errors=None, env=None):
        self.output = output
        given = (arguments, cwd, output, errors, dict(os.environ) if env is None else env)
        self._process = _CONTEXT.Process(target=_main, args=given)
        self._process.start()

    @property
    def pid(self):
        return self._process.pid

    def said(self):
        """Return all that it has printed."""
        return self.output.read_text() if self.output.exists() else ""

    def poll(self):
        """Return its exit status, negative where a signal ended it; None while it runs."""
        return self._process.exitcode

    def wait(self):
        """Wait for its end; returns the exit status."""
        self._process.join(PATIENCE)
        assert self.poll() is not None, self.said()
        return self.poll()


def _main(arguments, cwd, output, errors, environment):
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in a shell's background
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    for descriptor, path in ((1, output), (2, errors)):
        if path is not None:
            with path.open("wb") as file:
                os.dup2(file.fileno(), descriptor)
    if errors is None:
        os.dup2(1, 2)
    from tracefl.main import main

    sys.argv = ["tracefl", *map(str, arguments)]
    status = 0
    try:
        main()
    except SystemExit as stop:
        status = stop.code or 0
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # as the command line ends: without freeing object by object
