"""Rules of what a key of the configuration may hold."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tracefl.errors import ConfigError


@dataclass(frozen=True)
class Rule:
    """What a key may hold."""

    kinds: tuple[type, ...]
    allowed: Callable[[Any], bool]
    wanted: str
    optional: bool = False

    def check(self, key: str, value: Any) -> None:
        """Raise a ConfigError where the key may not hold the value."""
        if value is None and self.optional:
            return
        wrong_kind = not isinstance(value, self.kinds) or (isinstance(value, bool) and bool not in self.kinds)
        if wrong_kind or not self.allowed(value):
            raise ConfigError(f"{key} must be {self.wanted}{' or null' if self.optional else ''}, got {value!r}")


def whole(least: int, optional: bool = False) -> Rule:
    """Return the rule of a whole number of at least ``least``."""
    return Rule((int,), lambda v: v >= least, f"a whole number of at least {least}", optional)


def one_of(choices: tuple[str, ...]) -> Rule:
    """Return the rule of one of some words."""
    return Rule((str,), lambda v: v in choices, f"one of {', '.join(choices)}")


ABOVE_0 = Rule((int, float), lambda v: 0 < v < float("inf"), "a number above 0")

NOT_NEGATIVE = Rule((int, float), lambda v: 0 <= v < float("inf"), "a number of at least 0")

OPTIONAL_ABOVE_0 = dataclasses.replace(ABOVE_0, optional=True)

OPTIONAL_NOT_NEGATIVE = dataclasses.replace(NOT_NEGATIVE, optional=True)

FLAG = Rule((bool,), lambda _: True, "true or false")

NAME = Rule((str,), lambda v: bool(v) and "/" not in v and v not in (".", ".."), "a folder's name without '/'")


def is_index(value: Any) -> bool:
    """Return whether a value counts from 0: a client, a class."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


TEXT = Rule((str,), bool, "text (in quotes where it looks like a number)")

OPTIONAL_TEXT = Rule(TEXT.kinds, TEXT.allowed, TEXT.wanted, optional=True)


def value_at(config: Mapping[str, Any], key: str) -> Any:
    """Return the value of a dotted key.

    Raises:
        ConfigError: It is missing.
    """
    value: Any = config
    for part in key.split("."):
        if not isinstance(value, Mapping) or part not in value:
            raise ConfigError(f"{key} is missing; groups cannot be null and keys cannot be removed")
        value = value[part]
    return value


def check_group(rules: Mapping[str, Rule], name: str, group: Mapping[str, Any]) -> None:
    """Check the keys that a group has; those that it lacks are not asked for.

    Raises:
        ConfigError: A value is illegal.
    """
    for key, value in group.items():
        rule = rules.get(f"{name}.{key}")
        if rule is not None:
            rule.check(f"{name}.{key}", value)
