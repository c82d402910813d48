"""The tokenizer of a run: the model's own, or one trained on the run's training texts."""

import logging
from collections.abc import Callable, Sequence
from typing import Any

from tracefl.common.paths import expand
from tracefl.errors import ConfigError
from tracefl.learning.models.byte_pairs import train_tokenizer
from tracefl.learning.models.hub import fetch, find_local, is_folder, load_transformers
from tracefl.learning.models.registry import find_model
from tracefl.learning.models.settings import ModelSettings
from tracefl.learning.models.text_encoder import TextEncoder, ready

log = logging.getLogger(__name__)

VOCABULARY_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model")


def build_text_encoder(settings: ModelSettings, texts: Callable[[], Sequence[str]] | Sequence[str]) -> TextEncoder:
    """Find the tokenizer that ``model.tokenizer`` asks for, or train one.

    With pretrained weights, ``auto`` is the model's own tokenizer. Without them, it is the model's own if that is found
    in a folder or the local cache, otherwise a trained one; the network is not used.

    Args:
        settings: The configuration's ``model`` group.
        texts: Training texts, or a function that returns them, called only when a tokenizer is trained.

    Raises:
        ConfigError: The tokenizer can't be fetched, or a trained one is asked for with pretrained weights.
    """
    repository = getattr(find_model(settings.name, settings.family), "repository", None)
    if repository is None:
        raise ConfigError(f"model.name={settings.name} takes images, the data set gives text; choose model=gpt or bert")
    if settings.tokenizer == "trained" and settings.pretrained is not False:
        raise ConfigError(
            f"model.tokenizer=trained does not go with model.pretrained={settings.pretrained}: the weights know their "
            "own tokenizer's ids; set model.tokenizer=auto, or model.pretrained=false"
        )
    tokenizer = None
    if settings.tokenizer not in ("auto", "trained"):
        tokenizer = _fetch_tokenizer(settings.tokenizer, "model.tokenizer")
    elif settings.tokenizer == "auto":
        tokenizer = _own_tokenizer(settings, repository)
    if tokenizer is None:
        corpus = texts() if callable(texts) else texts
        encoder = ready(train_tokenizer(corpus, settings.tokenizer_vocab), "trained")
    else:
        encoder = ready(tokenizer, "own")
    log.info("tokenizer=%s model=%s vocabulary=%d", encoder.origin, settings.name, encoder.vocab_size)
    return encoder


def _own_tokenizer(settings: ModelSettings, repository: str) -> Any:
    if settings.pretrained is False:
        return _local_tokenizer(repository)
    if isinstance(settings.pretrained, str):
        found = _local_tokenizer(settings.pretrained) if is_folder(settings.pretrained) else None
        return found if found is not None else _fetch_tokenizer(repository, "model.tokenizer")
    return _fetch_tokenizer(repository, "model.pretrained")


def _local_tokenizer(source: str) -> Any:
    if is_folder(source) and not any(any(expand(source).glob(name)) for name in VOCABULARY_FILES):
        return None
    return find_local(load_transformers().AutoTokenizer, source)


def _fetch_tokenizer(source: str, key: str) -> Any:
    return fetch(load_transformers().AutoTokenizer, source, key)
