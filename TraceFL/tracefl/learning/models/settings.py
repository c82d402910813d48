"""The configuration group ``model``, and what another process needs to build the same architecture."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from tracefl.conf.constraints import above, at_least, described
from tracefl.errors import ConfigError, RecordError
from tracefl.learning.settings import OptimizerName

FAMILIES: dict[str, str] = {"torchvision": "image", "transformers": "text"}
"""Library of a model, to the kind of input that it takes."""

MIN_TOKENIZER_VOCAB = 300
"""Smallest vocabulary: a trained tokenizer starts from 256 bytes and its special tokens."""


_SIZES = described(
    "a mapping of attributes, such as {n_layer: 2}", lambda sizes: all(isinstance(name, str) for name in sizes)
)


@dataclass(frozen=True)
class ModelSettings:
    """The keys of ``conf/model/*.yaml``.

    Attributes:
        name: A registered name (``model_names()``), or for ``transformers`` also a Hugging Face id or a folder.
        family: Library that defines the architecture, a key of ``FAMILIES``.
        kind: Input that the model takes, ``image`` or ``text``; determined by the family.
        pretrained: ``False`` for random weights, ``True`` for the published ones, or the path of a state dict
            (``.pt``, ``.pth``, ``.safetensors``) or, for ``transformers``, of a model's folder.
        architecture: ``model_type`` of transformers, used if no configuration can be read; ``None`` otherwise.
        config: Sizes to override: attributes of the transformers configuration, e.g. ``{"n_layer": 2}``, or arguments
            of torchvision's class, e.g. ``{"layers": [1, 1, 1, 1]}``.
        tokenizer: ``auto``, ``trained``, or the Hugging Face id or folder of a tokenizer.
        tokenizer_vocab: Largest vocabulary of a trained tokenizer, at least ``MIN_TOKENIZER_VOCAB``.
        optimizer: Optimizer of the clients' local training.
        lr: Learning rate of the clients' local training.

    Raises:
        ConfigError: The kind does not match the family.
    """

    name: str
    family: Literal["torchvision", "transformers"]
    kind: Literal["image", "text"]
    pretrained: bool | Annotated[str, described("the path of weights")] = False
    architecture: str | None = None
    config: Annotated[Mapping[str, Any], _SIZES] = field(default_factory=dict)
    tokenizer: str = "auto"
    tokenizer_vocab: Annotated[int, at_least(MIN_TOKENIZER_VOCAB)] = 8192
    optimizer: OptimizerName = "adam"
    lr: Annotated[float, above(0)] = 0.001

    def __post_init__(self) -> None:
        if self.kind != FAMILIES[self.family]:
            raise ConfigError(f"model.kind must be {FAMILIES[self.family]}, got {self.kind!r}")
        object.__setattr__(self, "config", dict(self.config))


@dataclass(frozen=True)
class ModelSpec:
    """An architecture without its weights: enough to rebuild it without files or network.

    Attributes:
        family: Library that defines the architecture, a key of ``FAMILIES``.
        name: As in ``ModelSettings``.
        num_classes: Number of logits for each input, at least 2.
        config: The full configuration of a ``transformers`` model, as JSON types; for ``torchvision``, only the sizes
            that differ from the published ones.
        norm: ``own`` for the architecture's normalisation, ``group`` for GroupNorm in place of every BatchNorm.
    """

    KEYS: ClassVar[frozenset[str]] = frozenset({"family", "name", "num_classes", "config", "norm"})
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
            raise RecordError(f"model specification is not JSON ({error}): {text[:60]!r}") from error
        if not isinstance(values, dict) or set(values) != cls.KEYS:
            raise RecordError(f"model specification needs exactly {sorted(cls.KEYS)}, got {text[:60]!r}")
        if values["norm"] not in cls.NORMS:
            raise RecordError(f"model specification has norm={values['norm']!r}, expected {' or '.join(cls.NORMS)}")
        return cls(**values)
