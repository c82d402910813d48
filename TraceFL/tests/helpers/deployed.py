"""A deployment as docs/deploy.md says: its own commands and nginx.conf, with other folders, addresses and ports."""

import os
import re
import shlex
import shutil
import socket
import subprocess
import sys

import pytest

from tests.helpers.configuration import REPOSITORY
from tests.helpers.documented import blocks
from tests.helpers.flower_processes import APP, Flower, free_port
from tests.helpers.fork_server import write_program
from tests.helpers.processes import wait_until

OUTSIDE = "127.0.0.2"
"""The address that strangers know. It is this machine's too, but what is bound to 127.0.0.1 is not there."""

#: What makes nginx a test's own, beside the server that docs/nginx.conf defines.
_NGINX = """daemon off; master_process off; pid {0}/nginx.pid; error_log stderr; events {{}}
http {{ access_log off; client_body_temp_path {0}/body; proxy_temp_path {0}/proxy; fastcgi_temp_path {0}/f;
uwsgi_temp_path {0}/u; scgi_temp_path {0}/s; include {0}/superlink.conf; }}
"""


def documented(beginning):
    """Return the command of docs/deploy.md that has these words, from them to its end."""
    page = REPOSITORY / "docs" / "deploy.md"
    texts = [block.text.replace("\\\n", " ") for block in blocks(page) if beginning in block.text]
    assert len(texts) == 1, (beginning, texts)
    return texts[0][texts[0].index(beginning) :].strip()


def find_nginx():
    """Return nginx's path; where it or ssh-keygen is missing the test is skipped, or fails if they are required."""
    path = f"{os.environ['PATH']}:/usr/sbin"
    missing = [name for name in ("nginx", "ssh-keygen", "openssl") if shutil.which(name, path=path) is None]
    if missing:
        message = f"no {', '.join(missing)} here: install nginx-light, openssh-client and openssl"
        if os.environ.get("TRACEFL_REQUIRE_NGINX") == "1":
            pytest.fail(message)
        pytest.skip(message)
    return shutil.which("nginx", path=path)


class Deployed(Flower):
    """A SuperLink that lets in registered SuperNodes through nginx, and what the test starts beside it."""

    def __init__(self, folder):
        self.nginx = find_nginx()
        self.gate = free_port()
        self.certificate = folder / "tls" / "server.pem"
        self.tls = f'root-certificates = "{self.certificate}"'
        super().__init__(folder)
        self._run("mkdir -p /tmp/tls && openssl", {"IP:127.0.0.1": f"IP:127.0.0.1,IP:{OUTSIDE}"})

    @property
    def superlink(self):
        """The command that starts the SuperLink."""
        return shlex.split(self._adapted(documented("flower-superlink")))

    def __enter__(self):
        self._start_client_app_server()
        (self.folder / "nginx.conf").write_text(_NGINX.format(self.folder))
        server = self._adapted((REPOSITORY / "docs" / "nginx.conf").read_text())
        (self.folder / "superlink.conf").write_text(server.replace("listen 8443", f"listen {OUTSIDE}:{self.gate}"))
        self.start("nginx", self.nginx, "-e", "stderr", "-p", str(self.folder), "-c", str(self.folder / "nginx.conf"))
        super().__enter__()
        wait_until(lambda: self.gate_is_open, lambda: self.said("nginx"))
        return self

    @property
    def gate_is_open(self):
        """Nginx answers."""
        with socket.socket() as probe:
            return probe.connect_ex((OUTSIDE, self.gate)) == 0

    def key(self, name):
        """Return the path of a client's private key, which is made when it is first asked for."""
        path = self.folder / f"key-{name}"
        if not path.exists():
            self._run("ssh-keygen", {"/tmp/client0": path})
        return path

    def register(self, name, client_id):
        """Let a client's key in, with an id or, for None, without one; returns its node's id."""
        command = documented("flwr supernode register").replace("/tmp/client0", str(self.key(name)))
        command = command.replace("--name 0", "" if client_id is None else f"--name {client_id}")
        said = self.ask(*shlex.split(command)[1:])
        found = re.search(r"SuperNode (\d+) registered successfully", said)
        assert found, said
        return int(found.group(1))

    def start_supernode(self, name, data_path, partition_id=None):
        """Start the SuperNode of a client by its key; its id is its key's unless it says another."""
        says = "" if partition_id is None else f" partition-id={partition_id}"
        replaced = {
            "127.0.0.1:8443": f"{OUTSIDE}:{self.gate}",
            "/tmp/client0": self.key(name),
            "9100": free_port(),
            'data-path="/data/client0"': f'data-path="{data_path}"{says}',
        }
        self.start(name, *shlex.split(self._adapted(documented("flower-supernode --auth"), replaced)))

    def _run(self, beginning, replaced):
        command = ["bash", "-c", self._adapted(documented(beginning), replaced)]
        subprocess.run(command, check=True, capture_output=True)

    def _adapted(self, text, replaced=()):
        """Return what is documented with the deployment's own port and certificate, and with other words replaced."""
        for word, ours in dict(replaced).items():
            assert word in text, (word, text)
            text = text.replace(word, str(ours))
        return text.replace("9092", str(self.port)).replace("/tmp/tls", str(self.certificate.parent))

    def _start_client_app_server(self):
        """Let every ``flwr-clientapp`` be forked from one process: ten times as fast."""
        address = self.programs / "socket"
        write_program(self.programs, "flwr-clientapp", address)
        command = (sys.executable, "-m", "tests.helpers.client_app_server", str(address))
        self.start("client-apps", *command, PYTHONPATH=str(APP))
        wait_until(address.exists, lambda: self.said("client-apps"))
