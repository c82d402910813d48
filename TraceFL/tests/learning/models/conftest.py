import pytest

from tests.helpers.model_settings import TEXTS, text_settings
from tracefl.learning.models import TextEncoder, build_text_encoder, model_spec


@pytest.fixture(autouse=True)
def no_network(monkeypatch, tmp_path):
    """Every request goes to a closed port, and caches start empty."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


@pytest.fixture(scope="session")
def encoder() -> TextEncoder:
    return build_text_encoder(text_settings(), TEXTS)


@pytest.fixture
def tiny_spec(encoder):
    return lambda kind="gpt", **changes: model_spec(text_settings(kind, **changes), 3, encoder)
