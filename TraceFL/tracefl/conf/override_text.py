"""What to type in place of an override that Hydra's grammar cannot read."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from tracefl.common.names import did_you_mean
from tracefl.conf.slips import quoted, typed

_FREE = re.compile(r"[\w\s/\\+.$%*@?|:,-]*", re.ASCII)  # characters that Hydra reads without quotes
_FREE_KEY = re.compile(r"(model\.config|hydra)(\.\w+)+", re.ASCII)  # keys that the defaults need not have
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", re.IGNORECASE)
_CLOSED = {"[": "]", "{": "}"}
_DASHES = "-\u2013\u2014"
_STRAIGHT = str.maketrans({**dict.fromkeys("\u201c\u201d\u201e", '"'), **dict.fromkeys("\u2018\u2019\u201a", "'")})
"""Quotation marks that word processors make of those of ASCII."""

_PARSER = OverridesParser.create()


def explain_override(override: str, defaults: Mapping[str, Any]) -> str:
    """Return one line that says what is wrong with an override, and what to type.

    Args:
        override: As it was given to Hydra, which refused it.
        defaults: Every key, dotted, with its default; a group's is a mapping.
    """
    name, _, value = override.removeprefix("++").partition("=")
    key = _plain(name).lstrip(_DASHES).rstrip(":+")
    if key not in defaults and not _FREE_KEY.fullmatch(key):
        return f"unknown key {name!r}, see --help{did_you_mean(key, defaults)}"
    default = defaults.get(key)
    better = next((text for text in _better(value, default) if text and _is_readable(f"{key}={text}")), None)
    if better is None:
        better = "..." if default is None or isinstance(default, Mapping) else str(default)
    shown = name if name.isprintable() else key
    return f"{shown}={value!r} cannot be read: {_problem(name, value, default)}; type {typed(f'{key}={better}')}"


def explain_list(override: str, defaults: Mapping[str, Any]) -> str:
    """Return one line on an override with several values where one is wanted."""
    key, _, value = override.removeprefix("++").partition("=")
    default, numbers = defaults.get(key), re.fullmatch(r"[-+]?\d+(,\d+)*", value)
    decimal = [value.replace(",", ".")] if numbers and value.count(",") == 1 else []  # a decimal comma
    if isinstance(default, int | float):
        first = _NUMBER.search(value)
        meant = decimal or [first.group() if first else str(default)]
    elif isinstance(default, list):
        meant = [f"[{value}]"]
    elif numbers and default is None:
        meant = [f"[{value}]", *decimal]
    else:
        meant = [quoted(value)]
    return (
        f"{key}={value!r} is several values, as for a sweep: for one run type "
        f"{' or '.join(typed(f'{key}={text}') for text in meant)}, for one run of each value add --multirun"
    )


def _problem(name: str, value: str, default: Any) -> str:
    unseen = next((letter for letter in name + value if _is_unseen(letter)), None)
    if unseen == "\r":
        return "it ends in a carriage return, as lines of files from Windows do"
    if unseen is not None:
        return f"it holds the invisible character U+{ord(unseen):04X}"
    if name != name.strip() or not name.isascii():
        return "nothing but the key stands before the ="
    if value.startswith("="):
        return "one = is enough"
    if isinstance(default, bool):
        return "give true or false"
    if isinstance(default, int | float):
        return "give a number alone"
    free = _FREE.match(value)
    odd = value[free.end() :][:1] if free else ""
    if odd in ("]", "}", ")", "[", "{", "("):
        return "its brackets do not make a list [a, b] or a mapping {a: b}, and in a text they need quotes"
    return f"a text with {odd} needs quotes" if odd else "something else must follow, or nothing"


def _better(value: str, default: Any) -> Iterator[str]:
    """Yield what may have been meant, the likeliest first."""
    plain = _plain(value).lstrip("=").strip()
    if isinstance(default, bool):
        yield from re.findall("true|false", plain, re.IGNORECASE)
        return
    if isinstance(default, int | float):
        number = _NUMBER.search(plain)
        yield number.group() if number else str(default)
        return
    yield plain
    yield plain.rstrip(",;:")
    if isinstance(default, list) and plain[:1] in "([{":
        yield _parts_quoted(f"[{plain.strip('()[]{}')}]")
    elif isinstance(default, Mapping) and not plain.startswith("{"):
        yield re.sub(r"\W", "", plain, flags=re.ASCII)
    else:
        yield plain[:-1] if plain[:1] in _CLOSED else quoted(plain)
        yield _parts_quoted(plain)
        yield quoted(plain)


def _parts_quoted(text: str) -> str:
    """Return a list or a mapping with those of its parts in quotes that need it; other text is returned as it is."""
    if text[:1] not in _CLOSED or text[-1:] != _CLOSED[text[0]]:
        return text
    parts = []
    for part in _parts(text[1:-1]):
        key, between, value = part, "", ""
        if text[0] == "{":
            key, between, value = (*re.split(r"\s*(->|=>|:|=)\s*", part, maxsplit=1), "", "")[:3]
        parts.append(f"{_one_quoted(key)}: {_one_quoted(value)}" if between else _one_quoted(key))
    return f"{text[0]}{', '.join(parts)}{text[-1]}"


def _one_quoted(text: str) -> str:
    if text[:1] in _CLOSED:
        return _parts_quoted(text)
    return text if not text or _is_readable(f"key={text}") else quoted(text)


def _parts(text: str) -> Iterator[str]:
    """Yield the parts between the commas that are in no brackets and no quotes."""
    depth, quote, start = 0, "", 0
    for position, letter in enumerate(text):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter if text[start:position].strip() == "" else ""
        elif letter in "[{(":
            depth += 1
        elif letter in "]})":
            depth -= 1
        elif letter in ",;" and depth == 0:
            yield text[start:position].strip()
            start = position + 1
    if text[start:].strip():
        yield text[start:].strip()


def _is_readable(override: str) -> bool:
    """Whether Hydra reads an override as one value."""
    try:
        return not _PARSER.parse_override(override).is_sweep_override()
    except HydraException:
        return False


def _is_unseen(letter: str) -> bool:
    return letter != " " and not letter.isprintable()


def _plain(text: str) -> str:
    """Return a text without invisible characters, and in ASCII's quotes."""
    seen = "".join(" " if letter.isspace() else letter for letter in text if letter.isspace() or not _is_unseen(letter))
    return seen.translate(_STRAIGHT).strip()
