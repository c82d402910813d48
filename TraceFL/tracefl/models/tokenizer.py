"""Texts to token ids: by a model's own tokenizer, or by one trained on the run's training texts."""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tracefl.errors import ConfigError, RecordError
from tracefl.models.byte_pairs import PAD, train_tokenizer
from tracefl.models.hub import fetch, find_local, is_folder, load_transformers
from tracefl.models.registry import find_model
from tracefl.models.settings import ModelSettings

log = logging.getLogger(__name__)

ORIGIN_FILE = "text_encoder.json"
TEXTS_AT_ONCE = 1024
VOCABULARY_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model")


@dataclass(frozen=True)
class TextEncoder:
    """A tokenizer with a padding token, which pads and cuts on the right.

    Attributes:
        tokenizer: A fast tokenizer of transformers.
        origin: ``own`` for the model's, or one given in ``model.tokenizer``; ``trained`` for one of this run.
    """

    tokenizer: Any
    origin: str

    @property
    def vocab_size(self) -> int:
        """Number of ids, special and added ones included."""
        return len(self.tokenizer)

    @property
    def pad_id(self) -> int:
        """Id of the padding token."""
        return int(self.tokenizer.pad_token_id)

    @property
    def special_ids(self) -> tuple[int, ...]:
        """Ids of the tokens that stand for no text: padding, a text's ends and the like."""
        return tuple(map(int, self.tokenizer.all_special_ids))

    def encode(self, texts: Sequence[str], max_tokens: int) -> dict[str, Tensor]:
        """Encode single texts.

        Args:
            texts: N texts.
            max_tokens: T, the length that each is cut or padded to, in tokens with the special ones.

        Returns:
            ``input_ids`` and ``attention_mask``, each ``(N, T)`` int32. An empty text counts as one padding token.

        Raises:
            ConfigError: ``max_tokens`` leaves no room for text.
        """
        special = self.tokenizer.num_special_tokens_to_add()
        if max_tokens <= special:
            raise ConfigError(f"dataset.max_tokens={max_tokens}: give more than the {special} special tokens")
        names = ("input_ids", "attention_mask")
        encoded = {name: torch.empty(len(texts), max_tokens, dtype=torch.int32) for name in names}
        for start in range(0, len(texts), TEXTS_AT_ONCE):
            part = slice(start, start + TEXTS_AT_ONCE)
            rows = self.tokenizer(
                list(texts[part]),
                truncation=True,
                max_length=max_tokens,
                padding="max_length",
                return_token_type_ids=False,
                return_attention_mask=True,
            )
            for name in names:
                encoded[name][part] = torch.tensor(rows[name], dtype=torch.int32)
        encoded["attention_mask"][:, 0] = 1
        return encoded

    def decode(self, encoded: Mapping[str, Tensor]) -> list[str]:
        """Return what is left of N texts: the words of their tokens, without special ones.

        Args:
            encoded: As of ``encode``.
        """
        pairs = zip(encoded["input_ids"], encoded["attention_mask"], strict=True)
        kept = [ids[mask.bool()].tolist() for ids, mask in pairs]
        return [str(self.tokenizer.decode(ids, skip_special_tokens=True)).strip() for ids in kept]

    def save(self, folder: Path | str) -> None:
        """Write the tokenizer to ``folder`` as JSON files."""
        self.tokenizer.save_pretrained(folder)
        (Path(folder) / ORIGIN_FILE).write_text(json.dumps({"origin": self.origin}))

    @classmethod
    def load(cls, folder: Path | str) -> "TextEncoder":
        """Read what ``save`` wrote.

        Raises:
            RecordError: The folder holds no such files.
        """
        tokenizer = (
            find_local(load_transformers().PreTrainedTokenizerFast, str(folder)) if is_folder(str(folder)) else None
        )
        try:
            origin = json.loads((Path(folder) / ORIGIN_FILE).read_text())["origin"]
        except (OSError, ValueError, KeyError) as error:
            raise RecordError(f"{str(folder)!r} holds no saved tokenizer ({error}); record the run anew") from error
        if tokenizer is None:
            raise RecordError(f"{str(folder)!r} holds no readable tokenizer.json; record the run anew")
        return _ready(tokenizer, origin)


def build_text_encoder(settings: ModelSettings, texts: Callable[[], Sequence[str]] | Sequence[str]) -> TextEncoder:
    """Find the tokenizer that ``model.tokenizer`` asks for, or train one.

    ``auto`` is the model's own one with pretrained weights. Without them it is the model's own where that is in a
    folder or the local cache, and else a trained one; the network is not asked.

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
        encoder = _ready(train_tokenizer(corpus, settings.tokenizer_vocab), "trained")
    else:
        encoder = _ready(tokenizer, "own")
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
    if is_folder(source) and not any(any(Path(source).expanduser().glob(name)) for name in VOCABULARY_FILES):
        return None
    return find_local(load_transformers().AutoTokenizer, source)


def _fetch_tokenizer(source: str, key: str) -> Any:
    return fetch(load_transformers().AutoTokenizer, source, key)


def _ready(tokenizer: Any, origin: str) -> TextEncoder:
    tokenizer.padding_side = tokenizer.truncation_side = "right"
    if tokenizer.pad_token is None:
        tokenizer.add_special_tokens({"pad_token": PAD})
    return TextEncoder(tokenizer, origin)
