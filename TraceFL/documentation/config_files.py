"""A configuration file with its comments, which describe each key."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import yaml


@dataclass(frozen=True)
class Entry:
    """A key in a configuration file.

    Attributes:
        key: Dotted, relative to the file's own group.
        value: As written in the file; a list over several lines becomes one line.
        comment: The comment beside it, on one line; empty if there is none.
    """

    key: str
    value: str
    comment: str


@dataclass(frozen=True)
class ConfigFile:
    """A configuration file.

    Attributes:
        name: The file's name without ``.yaml``.
        text: The whole text.
        header: Lines of the comment at its beginning.
        parents: Files of its group that it builds on, first to last.
        entries: Its keys, in order.
    """

    name: str
    text: str
    header: tuple[str, ...]
    parents: tuple[str, ...]
    entries: tuple[Entry, ...]


def read_config_file(path: Path) -> ConfigFile:
    """Read a file with its comments."""
    text = path.read_text()
    lines = text.splitlines()
    first = next((i for i, line in enumerate(lines) if not line.startswith("#")), len(lines))
    header = tuple(line.removeprefix("#").strip() for line in lines[:first])
    defaults = yaml.safe_load(text).get("defaults", [])
    parents = tuple(name for name in defaults if isinstance(name, str) and name != "_self_")
    return ConfigFile(path.stem, text, header, parents, tuple(_entries(yaml.compose(text), text)))


def whole_entries(name: str, files: Mapping[str, ConfigFile]) -> dict[str, Entry]:
    """Return every key of a group's file and of those it builds on; a key without a comment takes theirs."""
    found: dict[str, Entry] = {}
    for parent in files[name].parents:
        found |= whole_entries(parent, files)
    for entry in files[name].entries:
        before = found.get(entry.key)
        found[entry.key] = entry if entry.comment or before is None else replace(entry, comment=before.comment)
    return found


def _entries(node: yaml.MappingNode, text: str, prefix: str = "") -> Iterator[Entry]:
    lines = text.splitlines()
    for key, value in node.value:
        name = f"{prefix}{key.value}"
        is_block = isinstance(value, yaml.CollectionNode) and not value.flow_style
        if name == "defaults":
            continue
        if is_block and isinstance(value, yaml.MappingNode):
            yield from _entries(value, text, f"{name}.")
        elif is_block:  # its comment is beside the key
            yield Entry(name, f"[{', '.join(item.value for item in value.value)}]", _comment(lines, key.end_mark))
        else:
            written = text[value.start_mark.index : value.end_mark.index]
            yield Entry(name, written, _comment(lines, value.end_mark))


def _comment(lines: Sequence[str], end: yaml.Mark) -> str:
    """Return the comment after a position in a line, with the lines below that continue it."""
    found = re.fullmatch(r":?\s*#\s*(.*)", lines[end.line][end.column :])
    if found is None:
        return ""
    parts = [found.group(1)]
    for below in lines[end.line + 1 :]:
        more = re.fullmatch(r"\s+#\s*(.*)", below)
        if more is None:
            break
        parts.append(more.group(1))
    return " ".join(parts)
