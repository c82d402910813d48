"""A tokenizer that encodes texts for a model."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tracefl.errors import ConfigError, RecordError
from tracefl.learning.models.byte_pairs import PAD
from tracefl.learning.models.hub import find_local, is_folder, load_transformers

ORIGIN_FILE = "text_encoder.json"

TEXTS_AT_ONCE = 1024


@dataclass(frozen=True)
class TextEncoder:
    """A tokenizer with a padding token, which pads and truncates on the right.

    Attributes:
        tokenizer: A fast tokenizer of transformers.
        origin: ``own`` for the model's tokenizer or one named in ``model.tokenizer``, ``trained`` for one trained in
            this run.
    """

    tokenizer: Any
    origin: str

    @property
    def vocab_size(self) -> int:
        """Number of ids, including special and added ones."""
        return len(self.tokenizer)

    @property
    def pad_id(self) -> int:
        """Id of the padding token."""
        return int(self.tokenizer.pad_token_id)

    @property
    def special_ids(self) -> tuple[int, ...]:
        """Ids of the special tokens: padding, start and end of a text and the like."""
        return tuple(map(int, self.tokenizer.all_special_ids))

    def encode(self, texts: Sequence[str], max_tokens: int) -> dict[str, Tensor]:
        """Encode texts, each on its own.

        Args:
            texts: N texts.
            max_tokens: T, the length that each text is cut or padded to, in tokens including special ones.

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
        """Return N texts as the model sees them: truncated, and without special tokens.

        Args:
            encoded: As ``encode`` returns it.
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
            RecordError: The folder holds no readable saved tokenizer.
        """
        tokenizer = (
            find_local(load_transformers().PreTrainedTokenizerFast, str(folder)) if is_folder(str(folder)) else None
        )
        try:
            origin = json.loads((Path(folder) / ORIGIN_FILE).read_text())["origin"]
        except (OSError, ValueError, KeyError) as error:
            raise RecordError(f"{str(folder)!r} holds no saved tokenizer ({error}); run again") from error
        if tokenizer is None:
            raise RecordError(f"{str(folder)!r} holds no readable tokenizer.json; run again")
        return ready(tokenizer, origin)


def ready(tokenizer: Any, origin: str) -> TextEncoder:
    """Set a tokenizer up as the models need it: padding and truncating on the right.

    Args:
        tokenizer: A tokenizer of transformers, changed in place; gets a padding token if it has none.
        origin: Where it comes from, for the record.
    """
    tokenizer.padding_side = tokenizer.truncation_side = "right"
    if tokenizer.pad_token is None:
        tokenizer.add_special_tokens({"pad_token": PAD})
    return TextEncoder(tokenizer, origin)
