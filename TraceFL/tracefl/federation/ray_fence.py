"""What keeps strangers out of Ray: whoever reaches its ports can otherwise run code as the user who started it.

As it comes, Ray listens on every interface and asks nobody who he is. The Ray of a run listens on this machine alone,
asks for a token that was drawn for this process, and keeps its files in a folder that nobody else can read.
"""

import logging
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from ray._private import ray_constants
from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

from tracefl.errors import ConfigError

log = logging.getLogger(__name__)

_MODE, _TOKEN, _TOKEN_FILE = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
_DEFAULT_TOKEN_FILE = "~/.ray/auth_token"


@contextmanager
def fenced() -> Iterator[Path]:
    """Let a Ray that is started in this process be of use to nobody else; everything is as before on exit.

    Yields:
        A folder for Ray's files that nobody else can enter; it is removed on exit.
    """
    before = {name: os.environ.pop(name, None) for name in (_MODE, _TOKEN, _TOKEN_FILE)}
    on_every_interface = ray_constants.ENABLE_RAY_CLUSTER
    folder = Path(tempfile.mkdtemp(prefix="tracefl-", dir=os.environ.get("RAY_TMPDIR", "/tmp")))
    try:
        os.environ |= {_MODE: "token", _TOKEN: _own_token()}
        _read_again()
        # What RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0 says, where it is set before Ray is imported: the node's address is
        # 127.0.0.1. An address given to ray.init is replaced by one that other machines reach.
        ray_constants.ENABLE_RAY_CLUSTER = False
        yield folder / "ray"  # which Ray opens to everybody, and so within a folder that is not
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = on_every_interface
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        _read_again()
        shutil.rmtree(folder, ignore_errors=True)  # Ray's last processes may still write there while they end


def _read_again() -> None:
    """Let Ray, which reads the variables when it is imported, read them again."""
    AuthenticationTokenLoader.instance().reset_cache()
    Config.initialize("")


@cache
def _own_token() -> str:
    """Return the token of this process: Ray's connections keep the one that they began with."""
    return secrets.token_hex(32)


def check_token(address: str) -> None:
    """Say so where a cluster of the user's is to be joined without a token.

    Raises:
        ConfigError: A token is asked for by ``RAY_AUTH_MODE``, and there is none.
    """
    if os.environ.get(_MODE) != "token":
        log.warning(
            "ray.address=%s: without RAY_AUTH_MODE=token whoever reaches the cluster's ports can run code on its "
            "nodes; see docs/cluster.md",
            address,
        )
        return
    file = Path(os.environ.get(_TOKEN_FILE) or _DEFAULT_TOKEN_FILE).expanduser()
    if not os.environ.get(_TOKEN) and not file.is_file():
        raise ConfigError(
            f"ray.address={address}: RAY_AUTH_MODE=token, and neither {_TOKEN} nor the file {file} holds a token; give "
            "the one that the cluster was started with"
        )


def token_hint(said: Sequence[str]) -> str:
    """Return what a token may have to do with a cluster that gives no answer, from what ``ray status`` said."""
    if any("InvalidAuthToken" in line for line in said):
        return f"; it was started with another token: set {_TOKEN} to that"
    return "" if os.environ.get(_MODE) == "token" else f"; if it was started with a token, export {_MODE} and {_TOKEN}"
