"""A stranger with nothing but addresses gets nowhere with the Ray of a run."""

import os

import pytest
import ray

from tests.helpers.sockets import answer_to_a_stranger, listening
from tracefl.errors import ConfigError
from tracefl.federation.ray_cluster import Resources, ray_cluster
from tracefl.federation.ray_fence import check_token, fenced, token_hint

pytestmark = [pytest.mark.slow, pytest.mark.simulation]


def test_a_stranger_is_refused_at_every_socket_of_a_run():
    variables = {name: value for name, value in os.environ.items() if name.startswith("RAY_AUTH")}
    before = listening(os.getpid())
    with ray_cluster(Resources(1, 0, 1, 0.0)) as up:
        up.result()
        assert ray.get(ray.remote(lambda: "ran").remote()) == "ran"  # a worker listens, too
        sockets = listening(os.getpid(), before)
        assert len(sockets) >= 6, sockets  # of the GCS, the raylet (2), its agent, a worker and this process
        assert {host for host, _ in sockets.values()} == {"127.0.0.1"}
        said = {(port, *owner): answer_to_a_stranger(port) for port, owner in sockets.items()}
        assert set(said.values()) == {"UNAUTHENTICATED", "401"}, said
    assert {name: value for name, value in os.environ.items() if name.startswith("RAY_AUTH")} == variables


def test_what_ray_writes_is_for_its_user_alone_and_goes_with_it():
    with fenced() as folder:
        folder.mkdir(mode=0o777)
        assert folder.parent.stat().st_mode & 0o077 == 0
    assert not folder.parent.exists()


def test_a_cluster_that_is_joined_without_a_token_is_said(monkeypatch, caplog):
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    check_token("head:6379")
    assert "without RAY_AUTH_MODE=token whoever reaches the cluster's ports can run code" in caplog.text
    assert token_hint([]) == "; if it was started with a token, export RAY_AUTH_MODE and RAY_AUTH_TOKEN"


def test_a_token_that_is_asked_for_must_be_there(monkeypatch, caplog, tmp_path):
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    with pytest.raises(
        ConfigError, match=r"ray.address=head:6379: RAY_AUTH_MODE=token, and neither RAY_AUTH_TOKEN nor the file "
    ):
        check_token("head:6379")
    (tmp_path / "token").write_text("00")
    check_token("head:6379")
    assert not caplog.text
    assert token_hint(["ray.exceptions.AuthenticationError: RPC error: InvalidAuthToken: ..."]) == (
        "; it was started with another token: set RAY_AUTH_TOKEN to that"
    )
