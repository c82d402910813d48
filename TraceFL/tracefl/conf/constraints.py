"""Constraints on what a configuration key may hold, and the one reader that turns a group into a typed dataclass.

A constraint annotates its field: ``lr: Annotated[float, above(0)]``. The rest follows from the field's type: a
``Literal`` lists its choices, ``| None`` allows null, a dataclass is a group of keys. ``A | B | None`` of dataclasses
with a ``name`` is a group whose choices read different keys: the YAML files list all keys, with null where the choice
does not read one, and the choice ``none`` becomes None.
"""

import dataclasses
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, TypeAlias, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from tracefl.common.names import did_you_mean
from tracefl.errors import ConfigError

T = TypeVar("T")

_NAMED = 3  # most choices that a message names


@dataclass(frozen=True)
class Constraint:
    """What a value may be, beyond its type.

    Attributes:
        allowed: Whether a value of the right type is legal.
        limits: What a message says after the type, such as ``of at least 1``.
        wanted: What a message says instead of type and limits; the constraint then also checks a list's or a mapping's
            members.
    """

    allowed: Callable[[Any], bool]
    limits: str = ""
    wanted: str = ""


@dataclass(frozen=True)
class Unused:
    """Placeholder, in place of null, for a key that the choice does not read."""

    value: object


def at_least(least: float) -> Constraint:
    """Return the constraint for a number of at least ``least``."""
    return Constraint(lambda v: v >= least, f"of at least {least}")


def above(bound: float) -> Constraint:
    """Return the constraint for a number above ``bound``."""
    return Constraint(lambda v: v > bound, f"above {bound}")


def between(limits: str) -> Constraint:
    """Return the constraint for a number in an interval, such as ``(0, 1]``."""
    low, high = (float(end) for end in limits[1:-1].split(","))

    def inside(value: float) -> bool:
        above_low = value >= low if limits[0] == "[" else value > low
        return above_low and (value <= high if limits[-1] == "]" else value < high)

    return Constraint(inside, f"in {limits}")


def described(words: str, allowed: Callable[[Any], bool] = lambda _: True) -> Constraint:
    """Return a constraint that messages state in these words alone, without naming the type."""
    return Constraint(allowed, wanted=words)


Count: TypeAlias = Annotated[int, at_least(1)]
"""A number of things, at least one."""


def is_index(value: Any) -> bool:
    """Return whether a value is an index from 0, such as a client's or a class's."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def are_different(values: Sequence[Any]) -> bool:
    """Return whether no value occurs twice."""
    return all(value not in values[:i] for i, value in enumerate(values))


def choice_name(group: Any) -> str:
    """Return the name of a group's choice, ``none`` for None."""
    return "none" if group is None else str(group.name)


def read(group: type[T], values: object, key: str = "") -> T:
    """Build a dataclass from a group of the resolved configuration.

    Args:
        group: The dataclass; all its fields are keys.
        values: The group: a mapping of its keys. Lists become tuples, other values stay as they are.
        key: The group's own key, which messages put before each key; "" for the whole configuration.

    Raises:
        ConfigError: A key is missing, unknown or holds what its constraint does not allow; one line.
    """
    hints, mapping = _hints(cast(Any, group)), values if isinstance(values, Mapping) else {}
    _check_keys(mapping, hints, key)
    return group(**{name: read_value(hint, mapping[name], _join(key, name)) for name, hint in hints.items()})


def read_value(hint: Any, value: object, key: str) -> Any:
    """Return the value of one key: a group read, a plain value checked against its type and constraint.

    Raises:
        ConfigError: As ``read``.
    """
    groups = [member for member in _members(hint) if dataclasses.is_dataclass(member)]
    if len(groups) > 1:
        return _read_choice(groups, None in _members(hint), value, key)
    if groups:
        found = read(cast(type[Any], groups[0]), value, key)
        return None if None in _members(hint) and not found.enabled else found
    _check_value(hint, value, key)
    return tuple(value) if isinstance(value, list) else value


def keys_of(group: Any, key: str = "") -> Iterator[str]:
    """Yield every key that a dataclass reads, dotted; a group is replaced by its keys."""
    for name, hint in _hints(group).items():
        groups = [member for member in _members(hint) if dataclasses.is_dataclass(member)]
        for member in groups:
            yield from keys_of(member, _join(key, name))
        if len(groups) > 1:
            yield f"{_join(key, name)}.name"
        if not groups:
            yield _join(key, name)


def _read_choice(groups: Sequence[Any], or_none: bool, values: object, key: str) -> Any:
    """Return the group that ``name`` chooses; None for ``none``."""
    mapping = values if isinstance(values, Mapping) else {}
    fields = {name: hint for group in groups for name, hint in _hints(group).items()}
    _check_keys(mapping, ("name", *fields), key)
    chosen = mapping["name"]
    names = [*(group.name for group in groups), *(["none"] if or_none else [])]
    if chosen not in names:
        raise ConfigError(f"{key}.name must be one of {', '.join(sorted(names))}, got {chosen!r}")
    group = next((group for group in groups if group.name == chosen), None)
    hints = {} if group is None else _hints(group)
    for name, hint in fields.items():
        value, full = mapping[name], f"{key}.{name}"
        if name not in hints and value is not None and Unused(value) not in get_args(hint):
            raise ConfigError(f"{full}={value} needs {_users(groups, key, name)}, got {key}={chosen}")
        if name in hints and value is None and None not in _members(hints[name]):
            raise ConfigError(f"{full} is null and {key}={chosen} needs it: give {full}=...")
    if group is None:
        return None
    return group(**{name: read_value(hint, mapping[name], f"{key}.{name}") for name, hint in hints.items()})


def _users(groups: Sequence[Any], key: str, name: str) -> str:
    """Return which choices read a key."""
    users = [f"{key}={group.name}" for group in groups if name in _hints(group)]
    return " or ".join(users) if len(users) <= _NAMED else f"a {key}, such as {users[0]}"


def _check_keys(values: Mapping[Any, Any], known: Sequence[str] | Mapping[str, Any], key: str) -> None:
    missing = [name for name in known if name not in values]
    if missing:
        raise ConfigError(f"{_join(key, missing[0])} is missing; groups cannot be null and keys cannot be removed")
    unknown = [str(name) for name in values if name not in known]
    if unknown:
        raise ConfigError(f"{_join(key, unknown[0])} is unknown; see --help{did_you_mean(unknown[0], list(known))}")


def _check_value(hint: Any, value: object, key: str) -> None:
    members = _members(hint)
    if (value is None and None in members) or any(_fits(member, value) for member in members if member is not None):
        return
    needed = " or ".join("null" if member is None else _words(member) for member in members)
    choices = [str(choice) for member in members for choice in get_args(_split(member)[0]) if _is_literal(member)]
    raise ConfigError(f"{key} must be {needed}, got {value!r}{did_you_mean(str(value), choices)}")


def _members(hint: Any) -> list[Any]:
    """Return the types that a hint allows, each with its constraint; None, for null, comes last."""
    if get_origin(hint) in (Union, types.UnionType):
        members = [member for part in get_args(hint) for member in _members(part)]
        return [member for member in members if member is not None] + [None] * (None in members)
    return [None] if hint is type(None) else [hint]


def _split(hint: Any) -> tuple[Any, list[Constraint]]:
    if get_origin(hint) is not Annotated:
        return hint, []
    inner, *constraints = get_args(hint)
    return inner, [each for each in constraints if isinstance(each, Constraint)]


def _is_literal(hint: Any) -> bool:
    return get_origin(_split(hint)[0]) is Literal


def _fits(hint: Any, value: Any) -> bool:
    kind, constraints = _split(hint)
    return any(_is(member, value, constraints) for member in _members(kind)) and all(
        constraint.allowed(value) for constraint in constraints
    )


def _is(kind: Any, value: Any, constraints: Sequence[Constraint] = ()) -> bool:
    """Return whether a value is of a type; a constraint with ``wanted`` checks a list's members itself."""
    origin = get_origin(kind) or kind
    if origin is Literal:
        return any(value == choice and type(value) is type(choice) for choice in get_args(kind))
    if origin is tuple:
        member = get_args(kind)[0]
        in_full = any(constraint.wanted for constraint in constraints)
        return isinstance(value, list | tuple) and (in_full or all(_is(member, v) for v in value))
    if origin is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and -float("inf") < value < float("inf")
    if origin is str:
        return isinstance(value, str) and bool(value.strip())
    return isinstance(value, origin) and (origin is bool or not isinstance(value, bool))


def _words(hint: Any) -> str:
    """Return how a message describes what a value must be."""
    kind, constraints = _split(hint)
    for constraint in constraints:
        if constraint.wanted:
            return constraint.wanted
    if _is_literal(kind):
        choices = [str(choice) for choice in get_args(kind)]
        return f"one of {', '.join(choices)}" if len(choices) > 1 else choices[0]
    words = {
        int: "a whole number",
        float: "a number",
        bool: "true or false",
        str: "text (in quotes where it looks like a number)",
    }
    if get_origin(kind) is tuple:
        member = get_args(kind)[0]
        of = ", ".join(map(str, get_args(member))) if _is_literal(member) else words[member]
        return " ".join((f"a list of {of}, or []", *(constraint.limits for constraint in constraints)))
    return " ".join((words.get(kind, "a mapping"), *(constraint.limits for constraint in constraints)))


def _join(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name


@cache
def _hints(group: Any) -> dict[str, Any]:
    """Return the type of each field, with its constraints."""
    hints = get_type_hints(group, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(group)}
