"""What the configuration group ``fault`` says."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tracefl.conf.choice_keys import ChoiceKeys
from tracefl.errors import ConfigError

TRIGGER_SIZE = 4
"""Side of a backdoor's patch where none is given, in pixels."""

_FAULTY = ("[clients]", "[num_clients]", "from_round", "min_examples")
_KEYS = ChoiceKeys(
    "fault",
    {
        "none": (),
        "label_flip": (*_FAULTY, "[flip]", "[all_to]", "share"),
        "random_labels": (*_FAULTY, "share"),
        "backdoor": (*_FAULTY, "target", "share", "[trigger_size]", "[trigger_token]"),
        "weight_noise": (*_FAULTY, "scale"),
        "free_rider": (*_FAULTY, "scale"),
    },
)


@dataclass(frozen=True)
class FaultSettings:
    """The keys of ``conf/fault/*.yaml``; those that a choice does not read are None.

    Attributes:
        name: ``none``, ``label_flip``, ``random_labels``, ``backdoor``, ``weight_noise`` or ``free_rider``.
        clients: Numbers of the faulty clients, from 0.
        num_clients: How many are drawn instead, at least 1. With neither it is client 0.
        from_round: First faulty round, from 1.
        min_examples: Examples that the fault can change which a faulty client must hold, at least 1.
        share: Fraction of those that are changed, in (0, 1].
        flip: Label to the label that it becomes.
        all_to: Label that all others become. With neither it is 0.
        target: Class that a backdoor's trigger is to mean.
        trigger_size: Side of the patch on images, in pixels; None for ``TRIGGER_SIZE``.
        trigger_token: Id of the token in texts; None for the vocabulary's last that is not special.
        scale: Standard deviation of the noise, relative: see ``tracefl.learning.faults.updates``.

    Raises:
        ConfigError: A key is missing for this choice, set and not read by it, or does not go with another.
    """

    name: str = "none"
    clients: tuple[int, ...] | None = None
    num_clients: int | None = None
    from_round: int | None = None
    min_examples: int | None = None
    share: float | None = None
    flip: Mapping[int, int] | None = field(default=None, hash=False)
    all_to: int | None = None
    target: int | None = None
    trigger_size: int | None = None
    trigger_token: int | None = None
    scale: float | None = None

    def __post_init__(self) -> None:
        _KEYS.check(self.name, {key: value for key, value in vars(self).items() if key != "name"})
        for key, other in (("clients", "num_clients"), ("flip", "all_to")):
            if getattr(self, key) is not None and getattr(self, other) is not None:
                raise ConfigError(
                    f"fault.{key}={_shown(getattr(self, key))} and fault.{other}={getattr(self, other)}: give one of "
                    "them, and set the other to null"
                )
        for label, becomes in (self.flip or {}).items():
            if label == becomes:
                raise ConfigError(f"fault.flip={self.flip} flips label {label} to itself; name another label")
        if self.name == "weight_noise" and self.scale == 0:
            raise ConfigError("fault.scale must be above 0 with fault=weight_noise, got 0")

    @property
    def is_none(self) -> bool:
        """Every client is honest."""
        return self.name == "none"

    def check_run(self, num_clients: int, num_rounds: int, kind: str, image_size: int) -> None:
        """Refuse a fault that the run cannot have.

        Args:
            num_clients: Clients of the run.
            num_rounds: Its rounds.
            kind: ``image`` or ``text``.
            image_size: Side of the images, in pixels.

        Raises:
            ConfigError: A client or round does not exist, or the trigger is of another kind of data.
        """
        if self.is_none:
            return
        absent = [client for client in self.clients or () if client >= num_clients]
        if absent:
            raise ConfigError(
                f"fault.clients={_shown(self.clients)} names client {absent[0]}, and num_clients={num_clients} are 0 "
                f"to {num_clients - 1}; name one of those"
            )
        if self.num_clients is not None and self.num_clients > num_clients:
            raise ConfigError(f"fault.num_clients={self.num_clients} is above num_clients={num_clients}; lower it")
        if self.from_round is not None and self.from_round > num_rounds:
            raise ConfigError(f"fault.from_round={self.from_round} is above num_rounds={num_rounds}; lower it")
        if self.trigger_size is not None and kind != "image":
            raise ConfigError(f"fault.trigger_size={self.trigger_size} is for images; set fault.trigger_token")
        if self.trigger_token is not None and kind != "text":
            raise ConfigError(f"fault.trigger_token={self.trigger_token} is for texts; set fault.trigger_size")
        size = TRIGGER_SIZE if self.trigger_size is None else self.trigger_size
        if self.name == "backdoor" and kind == "image" and size > image_size:
            raise ConfigError(f"fault.trigger_size={size} is above dataset.image_size={image_size}; lower it")


def read_fault(group: Mapping[str, Any]) -> FaultSettings:
    """Turn the group ``fault`` into settings.

    Raises:
        ConfigError: A key is missing, unknown, or not read by this choice.
    """
    _KEYS.refuse_unknown(group, FaultSettings.__dataclass_fields__)
    clients = group.get("clients")
    return FaultSettings(**{**group, "clients": None if clients is None else tuple(clients)})


def fault_words(group: Mapping[str, Any]) -> str:
    """Return a fault in the few words of a run's name, such as ``label_flip`` or ``2xlabel_flip0.3``; "" without one.

    Args:
        group: The group ``fault``; its values need not be legal.
    """
    if group["name"] == "none":
        return ""
    clients, share = group.get("clients"), group.get("share")
    count = group.get("num_clients") or (len(clients) if isinstance(clients, list) else 1)
    return f"{'' if count == 1 else f'{count}x'}{group['name']}{'' if share in (None, 1) else share}"


def _shown(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
