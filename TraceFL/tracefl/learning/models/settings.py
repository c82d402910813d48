"""What the configuration group ``model`` says, and what another process needs to build the same architecture."""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

from tracefl.common.names import did_you_mean
from tracefl.errors import ConfigError, RecordError
from tracefl.learning.training import OPTIMIZERS

FAMILIES: dict[str, str] = {"torchvision": "image", "transformers": "text"}
"""Library that a model comes from, to the kind of input it takes."""

MIN_TOKENIZER_VOCAB = 300
"""A trained tokenizer starts from 256 bytes and its special tokens."""


@dataclass(frozen=True)
class ModelSettings:
    """The keys of ``conf/model/*.yaml``.

    Attributes:
        name: A registered name (``model_names()``), or for ``transformers`` also a Hugging Face id or a folder.
        family: Library that defines the architecture, a key of ``FAMILIES``.
        kind: What the model takes, ``image`` or ``text``; follows from the family.
        pretrained: ``False`` for random weights, ``True`` for the published ones, or the path of a state dict
            (``.pt``, ``.pth``, ``.safetensors``) or, for ``transformers``, of a model's folder.
        architecture: ``model_type`` of transformers, used where no configuration can be read; ``None`` otherwise.
        config: Sizes to change: attributes of the transformers configuration, e.g. ``{"n_layer": 2}``, or arguments
            of torchvision's class, e.g. ``{"layers": [1, 1, 1, 1]}``.
        tokenizer: ``auto``, ``trained``, or the Hugging Face id or folder of a tokenizer.
        tokenizer_vocab: Most entries of a trained tokenizer's vocabulary, at least ``MIN_TOKENIZER_VOCAB``.
        optimizer: A member of ``OPTIMIZERS``.
        lr: Learning rate, above 0.

    Raises:
        ConfigError: A value is illegal; the message names the key.
    """

    name: str
    family: str
    kind: str
    pretrained: bool | str = False
    architecture: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    tokenizer: str = "auto"
    tokenizer_vocab: int = 8192
    optimizer: str = "adam"
    lr: float = 0.001

    def __post_init__(self) -> None:
        _one_of("family", self.family, FAMILIES)
        _one_of("kind", self.kind, (FAMILIES[self.family],))
        _one_of("optimizer", self.optimizer, OPTIMIZERS)
        _text("name", self.name)
        _text("tokenizer", self.tokenizer)
        if self.architecture is not None:
            _text("architecture", self.architecture)
        if not isinstance(self.pretrained, bool):
            _text("pretrained", self.pretrained)
        if not isinstance(self.config, Mapping) or not all(isinstance(key, str) for key in self.config):
            raise ConfigError(f"model.config={self.config!r}: give a mapping of attributes, such as {{n_layer: 2}}")
        object.__setattr__(self, "config", dict(self.config))
        vocab = self.tokenizer_vocab
        if not isinstance(vocab, int) or isinstance(vocab, bool) or vocab < MIN_TOKENIZER_VOCAB:
            raise ConfigError(f"model.tokenizer_vocab={vocab!r}: give a whole number of {MIN_TOKENIZER_VOCAB} or more")
        if not isinstance(self.lr, int | float) or isinstance(self.lr, bool) or not 0 < self.lr < math.inf:
            raise ConfigError(f"model.lr={self.lr!r}: give a finite number above 0, such as 0.001 or 5.0e-5")


@dataclass(frozen=True)
class ModelSpec:
    """An architecture, without its weights: enough to rebuild it with no file and no network.

    Attributes:
        family: Library that defines the architecture, a key of ``FAMILIES``.
        name: As in ``ModelSettings``.
        num_classes: Logits a model gives for each input, at least 2.
        config: The full configuration of a ``transformers`` model, in JSON's types; of ``torchvision`` what
            differs from the published sizes.
        norm: ``own`` for the architecture's normalisation, ``group`` for GroupNorm in place of every BatchNorm.
    """

    KEYS: ClassVar[frozenset[str]] = frozenset({"family", "name", "num_classes", "config"})
    NORMS: ClassVar[tuple[str, ...]] = ("own", "group")

    family: str
    name: str
    num_classes: int
    config: dict[str, Any] = field(default_factory=dict)
    norm: str = "own"

    def to_json(self) -> str:
        """Return the specification as one line of JSON."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "ModelSpec":
        """Read what ``to_json`` wrote.

        Raises:
            RecordError: ``text`` is not such a specification.
        """
        try:
            values = json.loads(text)
        except ValueError as error:
            raise RecordError(
                f"model specification is not JSON ({error}): {text[:60]!r}; record the run anew"
            ) from error
        if not isinstance(values, dict) or set(values) - {"norm"} != cls.KEYS:  # older ones have no norm
            raise RecordError(f"model specification needs exactly {sorted(cls.KEYS)}, got {text[:60]!r}")
        if values.get("norm", "own") not in cls.NORMS:
            raise RecordError(f"model specification has norm={values['norm']!r}, expected {' or '.join(cls.NORMS)}")
        return cls(**values)


def _one_of(key: str, value: object, choices: Iterable[str]) -> None:
    choices = tuple(choices)
    if value not in choices:
        raise ConfigError(f"model.{key}={value!r}: choose {' or '.join(choices)}{did_you_mean(str(value), choices)}")


def _text(key: str, value: object) -> None:
    if not isinstance(value, str) or not value.strip():
        raise ConfigError(f"model.{key}={value!r}: give a non-empty string")
