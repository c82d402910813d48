"""What was probably meant by a word on the command line that is no ``key=value``."""

import re
import shlex
from collections.abc import Iterable, Sequence

from tracefl.common.names import did_you_mean

_COLON = re.compile(r"([\w.]+)\s*[:\uff1a\uff1d]\s*([^=]*)")  # also the full-width : and =
_CLOSES = {"}": "{", "]": "[", ")": "("}


def explain_slip(words: Sequence[str], position: int, keys: Iterable[str]) -> str:
    """Return one line on a word that cannot be read, with the words to type instead where they can be guessed.

    Args:
        words: The command line, without options that are understood and their values.
        position: Of the word that cannot be read.
        keys: All keys that there are.
    """
    word, after, keys = words[position], list(words[position + 1 :]), list(keys)
    if is_cut_off(word):
        whole = _rejoined(word, after)
        if whole is not None:
            return f"{word!r} is cut off, as the shell divides words at spaces; put quotes around it: {typed(whole)}"
        key, _, value = word.partition("=")
        text = typed(f"{key}={quoted(''.join(filter(str.isprintable, value)))}")
        advice = f"close it, or, where it is text, type {text}" if key in keys else "close it"
        return f"{word!r} has a bracket or a quote without its end; {advice}"
    colon = _COLON.fullmatch(word)
    if colon and colon[1] in keys:
        meant = f"{colon[1]}={colon[2].strip() or '...'}"
        return f"unknown argument {word!r}; keys are given as key=value: {typed(meant)}"
    name, equals, value = word.lstrip("-").partition("=")
    key = name.replace("-", "_")
    what = f"unknown option {word!r}" if word.startswith("-") else f"unknown argument {word!r}"
    before = words[position - 1] if position and not word.startswith("-") else ""
    if before.endswith("="):
        return f"{what}; keys are given as key=value: {before}{word}"
    if key not in keys:
        if "=" in before and not after:
            return f"{what}; a value with a space needs quotes: {typed(f'{before} {word}')}"
        return f"{what}; keys are given as key=value, see --help{did_you_mean(key, keys)}"
    if not equals:
        rest = " ".join(after[:2]) if after[:1] == ["="] else "".join(after[:1])
        value = rest.removeprefix("=").strip() if rest.startswith("=") or "=" not in rest else ""
        value = "" if value.startswith("-") and not value[1:2].isdigit() else value
    meant = f"{key}={value or '...'}"
    return f"{what}; keys are given as key=value: {typed(meant)}"


def typed(word: str) -> str:
    """Return a word as it is typed in a shell, in the quotes that read best."""
    means_itself = not re.search(r"""["$`!]|\\[\\\n]|\\$""", word)  # between double quotes
    return f'"{word}"' if "'" in word and means_itself else shlex.quote(word)


def quoted(text: str) -> str:
    """Return a text in the quotes in which Hydra reads it as it is."""
    escaped = re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + (found[2] and "\\'"), text)
    return f"'{escaped}'"


def is_cut_off(word: str) -> bool:
    """Return whether a ``key=value`` opens a bracket or a quote that it does not close."""
    return "=" in word and not _is_whole(word)


def _rejoined(word: str, after: Sequence[str]) -> str | None:
    """Return the word with those after it, up to the one that closes its brackets; None where none does."""
    for number in range(1, len(after) + 1):
        whole = " ".join([word, *after[:number]])
        if _is_whole(whole):
            return whole
    return None


def _is_whole(text: str) -> bool:
    opened: list[str] = []
    quote = ""
    for before, letter in zip(" " + text, text, strict=False):
        if quote:
            quote = "" if letter == quote and before != "\\" else quote
        elif letter in "'\"" and before in "=:,[{( ":  # elsewhere it is an apostrophe
            quote = letter
        elif letter in _CLOSES.values():
            opened.append(letter)
        elif letter in _CLOSES and (not opened or opened.pop() != _CLOSES[letter]):
            return True  # one too many: not cut off
    return not opened and not quote
