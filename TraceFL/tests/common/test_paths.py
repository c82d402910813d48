import os
from pathlib import Path

import pytest

from tracefl.common.paths import expand, usual_mode
from tracefl.errors import ConfigError


def test_homes_are_found(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert expand("~/logs") == Path("/home/me/logs")
    assert expand(Path("logs/~")) == Path("logs/~")


def test_a_user_who_does_not_exist_is_one_line():
    with pytest.raises(ConfigError, match="'~no-such-user/logs': there is no user 'no-such-user'; write the path out"):
        expand("~no-such-user/logs")


def test_a_file_that_a_library_hides_gets_the_usual_mode(tmp_path):
    path = tmp_path / "weights"
    before = os.umask(0o027)
    try:
        with usual_mode(path):
            path.write_text("x")
            path.chmod(0o600)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o640
