"""Flower's own processes for tests: a SuperLink and the command ``flwr``, all ended with the test."""

import ctypes
import io
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

from flwr.cli.app import app as flower_cli
from typer.testing import CliRunner

from tests.helpers.configuration import REPOSITORY
from tests.helpers.processes import PATIENCE, descendants, wait_until

APP = REPOSITORY / "TraceFL"
_PR_SET_PDEATHSIG = 1  # prctl(2)
BIN = Path(sys.executable).parent


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _end_with_parent():
    """Let a process be killed when the test's ends, however that ends; Flower's children look for their parents."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Flower:
    """A SuperLink that simulates, with its own folder and port, and what the test starts beside it.

    Args:
        folder: For Flower's files and every process's output.
    """

    tls = "insecure = true"
    """How ``flwr`` speaks to the SuperLink, a line of its config.toml."""

    def __init__(self, folder):
        self.folder = folder
        self.port = free_port()
        self.processes = {}
        self.programs = folder / "programs"
        self.programs.mkdir(parents=True)
        self.home = self.make_home("home", f"127.0.0.1:{self.port}")

    def make_home(self, name, address):
        """Return a folder of Flower's in which ``flwr`` speaks to an address unless told otherwise."""
        home = self.folder / name
        home.mkdir()
        superlink = f'[superlink.ours]\naddress = "{address}"\n{self.tls}\n'
        (home / "config.toml").write_text(f'[superlink]\ndefault = "ours"\n{superlink}')
        return home

    @property
    def superlink(self):
        """The command that starts the SuperLink."""
        return ["flower-superlink", "--insecure", "--simulation", "--host=127.0.0.1", f"--port={self.port}"]

    def __enter__(self):
        self.start("superlink", *self.superlink)
        wait_until(lambda: "lifespan: startup" in self.said("superlink"), lambda: self.said("superlink"))
        return self

    def __exit__(self, *error):
        for name in list(self.processes):
            self.kill(name)

    def start(self, name, command, *arguments, **variables):
        """Start a process in a session of its own."""
        output = (self.folder / f"{name}.out").open("w")
        self.processes[name] = subprocess.Popen(
            [BIN / command, *arguments],
            env=self._environment(self.folder / name if name != "superlink" else self.home) | variables,
            cwd=self.folder,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_end_with_parent,
        )

    def kill(self, name):
        """Kill a process and all that it started, at once."""
        process = self.processes.pop(name)
        for pid in (process.pid, *descendants(process.pid)):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        process.wait()

    def said(self, name):
        return (self.folder / f"{name}.out").read_text()

    def flwr(self, *arguments):
        """Call ``flwr``; returns its exit status and what it printed."""
        done = subprocess.run(
            [BIN / "flwr", *arguments],
            env=self._environment(self.home),
            cwd=APP,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
        )
        return done.returncode, done.stdout

    def submit(self, run_config, *options):
        """Start a run; returns its id."""
        _, said = self.flwr("run", ".", "--format=json", "--run-config", run_config, *options)
        answer = json.loads(said[said.index("{") :])
        assert answer.get("run-id"), said
        return answer["run-id"]

    def ask(self, *arguments, home=None):
        """Call a ``flwr`` that only asks in this process, where it costs a fiftieth; returns what it printed."""
        printed = io.StringIO()  # what --format=json prints bypasses any redirection
        with patch.object(sys, "__stdout__", printed):
            done = CliRunner().invoke(flower_cli, arguments, env=self._environment(home or self.home))
        return done.output + printed.getvalue()

    def status(self, run_id):
        """Return a run's status, such as ``finished:completed``, and what Flower says of it."""
        said = self.ask("list", "--run-id", run_id, "--format=json")
        run = json.loads(said[said.index("{") :])["runs"][0]
        return run["status"], json.dumps(run)

    def _environment(self, home):
        ours = {
            "FLWR_HOME": str(home),
            "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "FLWR_TELEMETRY_ENABLED": "0",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": "0" * 64,
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "2"),
            "PATH": f"{self.programs}{os.pathsep}{BIN}{os.pathsep}{os.environ['PATH']}",
        }
        return os.environ | ours
