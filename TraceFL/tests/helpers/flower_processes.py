"""Flower's own processes for tests: a SuperLink, SuperNodes and the command ``flwr``, all ended with the test."""

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
from tests.helpers.fork_server import write_program
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
    """A SuperLink with its own folder and port, and what the test starts beside it.

    Args:
        folder: For Flower's files and every process's output.
        certificates: Folder of ``ca.crt``, ``server.pem`` and ``server.key``; without it Flower simulates.
    """

    def __init__(self, folder, certificates=None):
        self.folder = folder
        self.port = free_port()
        self.certificates = certificates
        self.processes = {}
        self.home = folder / "home"
        self.home.mkdir(parents=True)
        self.programs = folder / "programs"
        self.programs.mkdir()
        tls = "insecure = true" if certificates is None else f'root-certificates = "{certificates / "ca.crt"}"'
        config = f'[superlink]\ndefault = "here"\n[superlink.here]\naddress = "127.0.0.1:{self.port}"\n{tls}\n'
        (self.home / "config.toml").write_text(config)

    def __enter__(self):
        if self.certificates is None:
            options = ["--insecure", "--simulation"]
        else:
            files = {"ca-certfile": "ca.crt", "certfile": "server.pem", "keyfile": "server.key"}
            options = [f"--ssl-{option}={self.certificates / name}" for option, name in files.items()]
        if self.certificates is not None:
            self._start_client_app_server()
        self.start("superlink", "flower-superlink", *options, "--host=127.0.0.1", f"--port={self.port}")
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

    def _start_client_app_server(self):
        """Let every ``flwr-clientapp`` be forked from one process: ten times as fast."""
        address = self.programs / "socket"
        write_program(self.programs, "flwr-clientapp", address)
        command = (sys.executable, "-m", "tests.helpers.client_app_server", str(address))
        self.start("client-apps", *command, PYTHONPATH=str(APP))
        wait_until(address.exists, lambda: self.said("client-apps"))

    def start_supernode(self, name, data_path, partition_id=None):
        who = "" if partition_id is None else f" partition-id={partition_id}"
        self.start(
            name,
            "flower-supernode",
            f"--root-certificates={self.certificates / 'ca.crt'}",
            f"--superlink=127.0.0.1:{self.port}",
            "--host=127.0.0.1",
            f"--port={free_port()}",
            "--node-config",
            f'data-path="{data_path}"{who}',
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

    def ask(self, *arguments):
        """Call a ``flwr`` that only asks in this process, where it costs a fiftieth; returns what it printed."""
        printed = io.StringIO()  # what --format=json prints bypasses any redirection
        with patch.object(sys, "__stdout__", printed):
            done = CliRunner().invoke(flower_cli, arguments, env=self._environment(self.home))
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
