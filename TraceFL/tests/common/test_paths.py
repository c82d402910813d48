from pathlib import Path

import pytest

from tracefl.common.paths import expand
from tracefl.errors import ConfigError


def test_homes_are_found(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert expand("~/logs") == Path("/home/me/logs")
    assert expand(Path("logs/~")) == Path("logs/~")


def test_a_user_who_does_not_exist_is_one_line():
    with pytest.raises(ConfigError, match="'~no-such-user/logs': there is no user 'no-such-user'; write the path out"):
        expand("~no-such-user/logs")
