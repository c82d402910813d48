import http.server
import logging
import socket
import threading
import time
from contextlib import contextmanager

import pytest

from tracefl.errors import ConfigError
from tracefl.learning.models.hub import fetch, find_local, http_status, load_transformers


@contextmanager
def server(status):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args):
            pass

    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{running.server_port}"
    finally:
        running.shutdown()
        running.server_close()


@pytest.fixture
def loopback(monkeypatch):
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "127.0.0.1")


@pytest.mark.parametrize("status", [200, 404, 503])
def test_status_of_a_server(status, loopback):
    with server(status) as url:
        assert http_status(url) == status


def test_no_server_is_noticed_at_once():
    started = time.monotonic()
    assert http_status("https://huggingface.co/nobody/nothing") is None  # through the closed port of conftest
    assert time.monotonic() - started < 10


def test_a_silent_server_is_given_up(loopback):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        started = time.monotonic()
        assert http_status(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout_seconds=0.5) is None
        assert time.monotonic() - started < 10


class Absent:
    """Stands for a class of transformers whose files are not in the cache."""

    def __init__(self):
        self.asked_network = 0

    __name__ = "Absent"

    def from_pretrained(self, source, local_files_only=False, *, trust_remote_code):
        assert trust_remote_code is False
        self.asked_network += not local_files_only
        raise OSError("not\nhere")


@pytest.mark.parametrize(
    ("status", "asked", "reason"),
    [(503, 0, r"answers with status 503\)"), (404, 1, r"answers with status 404\)"), (200, 1, "status 200: not here")],
)
def test_transformers_gets_no_chance_to_retry_a_failing_hub(status, asked, reason, loopback, monkeypatch):
    from huggingface_hub import constants

    loader = Absent()
    with server(status) as url:
        monkeypatch.setattr(constants, "ENDPOINT", url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        with pytest.raises(ConfigError, match=rf"{reason}.*hf download nobody/nothing"):
            fetch(loader, "nobody/nothing", "model.pretrained")
    assert loader.asked_network == asked


def test_offline_mode_asks_nobody(monkeypatch):
    from huggingface_hub import constants

    loader = Absent()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match="gives no answer"):
        fetch(loader, "nobody/nothing", "model.pretrained")
    assert loader.asked_network == 0


def test_unreadable_folder(tmp_path):
    auto = load_transformers().AutoConfig
    (tmp_path / "config.json").write_text("no JSON")
    assert find_local(auto, str(tmp_path)) is None
    with pytest.raises(ConfigError, match=r"holds no files that AutoConfig can read; set model\.pretrained"):
        fetch(auto, str(tmp_path), "model.pretrained")


def test_transformers_is_quiet_but_its_loggers_work():
    transformers = load_transformers()
    assert transformers.utils.logging.get_verbosity() == logging.ERROR
    assert not logging.getLogger("transformers").disabled
