"""Keys of a configuration group whose choices each read some of them, such as ``fault`` and ``privacy``."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from tracefl.errors import ConfigError

_NAMED = 3  # choices that a message names, at most


@dataclass(frozen=True)
class ChoiceKeys:
    """Which keys each choice of a group reads.

    Attributes:
        group: The group's name.
        read: Choice to the keys that it reads; a key in brackets may be null.
    """

    group: str
    read: Mapping[str, Collection[str]]

    def check(self, choice: str, values: Mapping[str, Any]) -> None:
        """Refuse a key that the choice needs and is null, and one that is set and not read.

        Args:
            choice: A key of ``read``.
            values: The group's keys that only some choices read.

        Raises:
            ConfigError: There is such a key.
        """
        optional = {key.strip("[]"): key.startswith("[") for key in self.read[choice]}
        for key, value in values.items():
            name = f"{self.group}.{key}"
            if value is None and not optional.get(key, True):
                raise ConfigError(f"{name} is null and {self.group}={choice} needs it: give {name}=...")
            if value is not None and key not in optional:
                shown = list(value) if isinstance(value, tuple) else value
                raise ConfigError(f"{name}={shown} needs {self._users(key)}, got {self.group}={choice}")

    def refuse_unknown(self, given: Collection[str], known: Collection[str]) -> None:
        """Refuse a key that the group does not have.

        Raises:
            ConfigError: There is one.
        """
        unknown = sorted(set(given) - set(known))
        if unknown:
            raise ConfigError(f"{self.group}.{unknown[0]} is unknown; see --help")

    def _users(self, key: str) -> str:
        """Return which choices read a key."""
        users = [f"{self.group}={choice}" for choice, keys in self.read.items() if {key, f"[{key}]"} & set(keys)]
        return " or ".join(users) if len(users) <= _NAMED else f"a {self.group}, such as {users[0]}"
