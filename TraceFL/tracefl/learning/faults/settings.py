"""The configuration group ``fault``: one class per choice."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, TypeAlias

from tracefl.conf.constraints import above, are_different, at_least, between, described, is_index
from tracefl.errors import ConfigError

TRIGGER_SIZE = 4
"""Default side of a backdoor's patch, in pixels."""

_CLIENTS = described(
    "a list of different client numbers such as [0] or [0,3]",
    lambda v: bool(v) and all(map(is_index, v)) and are_different(v),
)
_FLIP = described(
    "a mapping of classes, from 0, such as {1: 0, 2: 0}",
    lambda v: bool(v) and all(map(is_index, (*v, *v.values()))),
)
_CLASS = described("a class, from 0", is_index)
_SHARE = between("(0, 1]")


@dataclass(frozen=True)
class FaultSettings:
    """The keys that every fault has.

    Attributes:
        clients: Numbers of the faulty clients, from 0; None for client 0, or for ``num_clients`` drawn ones.
        num_clients: How many clients to draw at random, instead of naming ``clients``.
        from_round: First faulty round, from 1.
        min_examples: A faulty client must hold at least this many examples that the fault can change.

    Raises:
        ConfigError: Two mutually exclusive keys are given.
    """

    name: ClassVar[str]

    clients: Annotated[tuple[int, ...], _CLIENTS] | None
    num_clients: Annotated[int, at_least(1)] | None
    from_round: Annotated[int, at_least(1)]
    min_examples: Annotated[int, at_least(1)]

    def __post_init__(self) -> None:
        _refuse_both("clients", _shown(self.clients), "num_clients", self.num_clients)

    def check_run(self, num_clients: int, num_rounds: int) -> None:
        """Check that the run has the faulty clients and the first faulty round.

        Raises:
            ConfigError: A faulty client or the round does not exist, or there are too few clients to draw from.
        """
        absent = [client for client in self.clients or () if client >= num_clients]
        if absent:
            raise ConfigError(
                f"fault.clients={_shown(self.clients)} names client {absent[0]}, and num_clients={num_clients} are 0 "
                f"to {num_clients - 1}; name one of those"
            )
        if self.num_clients is not None and self.num_clients > num_clients:
            raise ConfigError(f"fault.num_clients={self.num_clients} is above num_clients={num_clients}; lower it")
        if self.from_round > num_rounds:
            raise ConfigError(f"fault.from_round={self.from_round} is above num_rounds={num_rounds}; lower it")


@dataclass(frozen=True)
class LabelFlip(FaultSettings):
    """Labels are flipped to other labels.

    Attributes:
        share: Fraction of the matching examples that are changed.
        flip: Label to the label that it is flipped to.
        all_to: Label that all others are flipped to; 0 if neither ``flip`` nor ``all_to`` is given.
    """

    name: ClassVar[str] = "label_flip"

    share: Annotated[float, _SHARE]
    flip: Annotated[Mapping[int, int], _FLIP] | None = field(default=None, hash=False)
    all_to: Annotated[int, _CLASS] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _refuse_both("flip", self.flip, "all_to", self.all_to)
        for label, becomes in (self.flip or {}).items():
            if label == becomes:
                raise ConfigError(f"fault.flip={self.flip} flips label {label} to itself; name another label")


@dataclass(frozen=True)
class RandomLabels(FaultSettings):
    """Labels are redrawn at random.

    Attributes:
        share: Fraction of the examples that are changed.
    """

    name: ClassVar[str] = "random_labels"

    share: Annotated[float, _SHARE]


@dataclass(frozen=True)
class Backdoor(FaultSettings):
    """The model is to learn that a trigger in the input means the target class.

    Attributes:
        target: The target class.
        share: Fraction of the other classes' examples that get the trigger and the target as label.
        trigger_size: Side of the patch on images, in pixels; None for ``TRIGGER_SIZE``.
        trigger_token: Id of the token in texts; None for the last token of the vocabulary that is not special.
    """

    name: ClassVar[str] = "backdoor"

    target: Annotated[int, _CLASS]
    share: Annotated[float, _SHARE]
    trigger_size: Annotated[int, at_least(1)] | None = None
    trigger_token: Annotated[int, at_least(0)] | None = None

    @property
    def patch_size(self) -> int:
        """Side of the patch on images, in pixels."""
        return TRIGGER_SIZE if self.trigger_size is None else self.trigger_size

    def check_data(self, kind: str, image_size: int) -> None:
        """Check that the data can carry the trigger.

        Args:
            kind: ``image`` or ``text``.
            image_size: Side of the images, in pixels.

        Raises:
            ConfigError: The trigger is for the other kind of data, or larger than the images.
        """
        if self.trigger_size is not None and kind != "image":
            raise ConfigError(f"fault.trigger_size={self.trigger_size} is for images; set fault.trigger_token")
        if self.trigger_token is not None and kind != "text":
            raise ConfigError(f"fault.trigger_token={self.trigger_token} is for texts; set fault.trigger_size")
        if kind == "image" and self.patch_size > image_size:
            raise ConfigError(
                f"fault.trigger_size={self.patch_size} is above dataset.image_size={image_size}; lower it"
            )


@dataclass(frozen=True)
class WeightNoise(FaultSettings):
    """Noise on the trained weights.

    Attributes:
        scale: Standard deviation of the noise, relative to the update's root mean square.
    """

    name: ClassVar[str] = "weight_noise"

    scale: Annotated[float, above(0)]


@dataclass(frozen=True)
class FreeRider(FaultSettings):
    """The client sends the global weights back, with noise instead of training.

    Attributes:
        scale: Standard deviation of the noise, relative to the weights' root mean square.
    """

    name: ClassVar[str] = "free_rider"

    scale: Annotated[float, at_least(0)]


AnyFault: TypeAlias = LabelFlip | RandomLabels | Backdoor | WeightNoise | FreeRider


def _refuse_both(key: str, value: Any, other: str, other_value: Any) -> None:
    if value is not None and other_value is not None:
        raise ConfigError(
            f"fault.{key}={value} and fault.{other}={other_value}: give one of them, and set the other to null"
        )


def _shown(clients: tuple[int, ...] | None) -> list[int] | None:
    return None if clients is None else list(clients)
