"""The firewall that docs/deploy.md sets around the SuperLink's port, in a network of its own."""

import os
import pwd
import shutil
import subprocess
import sys

import pytest

from tests.helpers.configuration import REPOSITORY

REQUIRED = os.environ.get("TRACEFL_REQUIRE_NFT") == "1"
PATH = f"{os.environ['PATH']}:/usr/sbin"
WHO = ("daemon", "www-data", "nobody", "root")  # daemon: the user whom the page calls flower
KNOCK = """
import fcntl, os, pwd, socket, struct, subprocess, sys
with socket.socket() as probe:  # lo is down in a new network
    fcntl.ioctl(probe, 0x8914, struct.pack("16sh14x", b"lo", 1))  # SIOCSIFFLAGS, IFF_UP
server = socket.create_server(("127.0.0.1", 9092))
def knock(user):
    if os.fork() == 0:
        os.setgid(65534)
        os.setuid(pwd.getpwnam(user).pw_uid)
        os._exit(socket.socket().connect_ex(("127.0.0.1", 9092)) != 0)
    return os.waitstatus_to_exitcode(os.wait()[1])
users = sys.argv[2:]
open_to_all = [knock(user) for user in users]
subprocess.run(sys.argv[1], shell=True, check=True)
print(open_to_all, [knock(user) for user in users])
"""


def rules():
    """Return the page's commands, with a user that every machine has in the place of its own one."""
    page = (REPOSITORY / "docs" / "deploy.md").read_text()
    lines = [line for line in page.splitlines() if line.startswith("nft ")]
    assert len(lines) == 3
    return "\n".join(lines).replace("{ flower,", "{ daemon,")


@pytest.mark.skipif(
    not REQUIRED and (os.geteuid() != 0 or not shutil.which("nft", path=PATH) or not shutil.which("unshare")),
    reason="takes root, nft and unshare; TRACEFL_REQUIRE_NFT=1 makes it fail where they are missing",
)
def test_the_firewall_of_a_shared_machine_leaves_the_port_to_two_users():
    assert {user.pw_name for user in pwd.getpwall()} >= set(WHO)
    command = ["unshare", "--net", sys.executable, "-c", KNOCK, rules(), *WHO]
    done = subprocess.run(command, env=os.environ | {"PATH": PATH}, capture_output=True, text=True)
    assert done.stdout == "[0, 0, 0, 0] [0, 0, 1, 1]\n", done
