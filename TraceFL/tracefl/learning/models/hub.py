"""Models and tokenizers of Hugging Face, from a folder, the cache, or a network that may be unavailable."""

import http.client
import logging
import os
import threading
import urllib.error
import urllib.request
from functools import cache
from typing import Any

from tracefl.common.paths import expand
from tracefl.errors import ConfigError, one_line

log = logging.getLogger(__name__)

NETWORK_WAIT_SECONDS = 10.0


@cache
def load_transformers() -> Any:
    """Import transformers, without its progress bars and advice unless TRANSFORMERS_VERBOSITY asks for them."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # opt-in here; read when huggingface_hub is imported
    import transformers

    if "TRANSFORMERS_VERBOSITY" not in os.environ:
        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
    return transformers


def transformers_errors() -> tuple[type[Exception], ...]:
    """Return the errors that transformers raises for unreadable files and for inconsistent values."""
    from huggingface_hub.errors import StrictDataclassError

    return (
        OSError,
        ValueError,
        TypeError,
        RuntimeError,
        ArithmeticError,
        LookupError,
        AttributeError,
        AssertionError,
        StrictDataclassError,
    )


def is_unreadable(error: Exception) -> bool:
    """Return whether an error is one by which transformers, or tokenizers below it, says that it cannot read files."""
    return type(error) is Exception or isinstance(error, transformers_errors())  # tokenizers raises Exception itself


def brief(error: Exception) -> str:
    """Return an error's message on one line of at most 200 characters."""
    return one_line(error)[:200]


def http_status(url: str, timeout_seconds: float = NETWORK_WAIT_SECONDS) -> int | None:
    """Return the HTTP status of ``url``, or ``None`` if there is no answer within ``timeout_seconds``."""
    answers: list[int] = []

    def ask() -> None:
        request = urllib.request.Request(url, method="HEAD")
        try:
            with urllib.request.build_opener().open(request, timeout=timeout_seconds) as response:
                answers.append(response.status)
        except urllib.error.HTTPError as error:
            answers.append(error.code)
        except (OSError, ValueError, http.client.HTTPException) as error:
            log.debug("no answer from %s: %s", url, error)

    # A name server or address that drops packets can take several timeouts; joining the thread bounds their total.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(timeout_seconds)
    return answers[0] if answers else None


def is_folder(source: str) -> bool:
    """Return whether ``source`` is a folder rather than a Hugging Face id."""
    return expand(source).is_dir()


def find_local(loader: Any, source: str, **options: Any) -> Any:
    """Load from a folder or the cache, never from the network.

    Args:
        loader: A class of transformers with ``from_pretrained``.
        source: Hugging Face id, or folder.
        options: Passed to ``from_pretrained``.

    Returns:
        What ``from_pretrained`` returns, or ``None`` if the files are missing or unreadable.
    """
    path = str(expand(source)) if is_folder(source) else source
    try:
        return loader.from_pretrained(path, local_files_only=True, trust_remote_code=False, **options)
    except Exception as error:
        if not is_unreadable(error):
            raise
        log.debug("%s has no local %s: %s", source, loader.__name__, error)
        return None


def fetch(
    loader: Any,
    source: str,
    key: str,
    otherwise: str = "or set model.pretrained=false for random weights",
    **options: Any,
) -> Any:
    """Load from a folder, the cache or the network, or fail quickly with advice on how to get the files.

    Args:
        loader: A class of transformers with ``from_pretrained``.
        source: Hugging Face id, or folder.
        key: Configuration key for the path of a downloaded folder, used in the error message.
        otherwise: An alternative remedy, used in the error message.
        options: Passed to ``from_pretrained``.

    Raises:
        ConfigError: The files are not available locally and cannot be fetched.
    """
    found = find_local(loader, source, **options)
    if found is not None:
        return found
    if is_folder(source):
        raise ConfigError(f"folder {source!r} holds no files that {loader.__name__} can read; set {key} to another")
    load_transformers()
    from huggingface_hub import constants

    status = None
    if not constants.HF_HUB_OFFLINE:
        status = http_status(f"{constants.ENDPOINT}/{source}/resolve/main/config.json")
    reason = f"{constants.ENDPOINT} gives no answer"
    if status is not None:
        reason = f"{constants.ENDPOINT} answers with status {status}"
        if status < 500:  # 4xx too, as transformers may have a token; on 5xx it would retry for long
            try:
                return loader.from_pretrained(source, trust_remote_code=False, **options)
            except Exception as error:
                if not is_unreadable(error):
                    raise
                reason = f"{reason}: {brief(error)}" if status < 400 else reason
    raise ConfigError(
        f"{source!r} is neither a folder nor in the local cache, and cannot be fetched ({reason}). On a machine with "
        f"network run `hf download {source} --local-dir FOLDER`, copy FOLDER here and set {key}=FOLDER; {otherwise}"
    )
