"""The command that repeats a run, from its configuration alone."""

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from tracefl.conf.cli import CONF, choices

_NOT_GIVEN = ("overwrite", "resume", "dry_run")  # they say what becomes of a run that is there already
_ANY = {"model": "hf", "dataset": "hub"}  # choices whose name is the user's
_OPEN = "model.config"  # whose keys are each architecture's own
_PLAIN = re.compile(r"[A-Za-z_/.][\w/.:+-]*")
_OTHER_THAN_TEXT = ("null", "true", "false", "nan", "inf")  # as Hydra reads them, in small or capital letters


@dataclass(frozen=True)
class Command:
    """A command for a shell.

    Attributes:
        overrides: What follows ``python -m tracefl.main``, one override each, as Hydra reads them.
        left_out: Keys of the run's configuration that no longer exist, and so cannot be given.
    """

    overrides: tuple[str, ...]
    left_out: tuple[str, ...] = ()

    @property
    def line(self) -> str:
        """The whole command, quoted for a shell."""
        return shlex.join(["python", "-m", "tracefl.main", *self.overrides])


def repeat_command(config: Mapping[str, Any]) -> Command:
    """Return the shortest of commands that compose to a configuration: choices of groups, then single keys.

    Args:
        config: A run's resolved configuration.
    """
    base = OmegaConf.load(CONF / "base.yaml")
    assert isinstance(base, DictConfig)
    groups = _groups(base)
    chosen = {group: _choose(group, config[group]) for group in groups if group in config}
    made = OmegaConf.merge(base, {group: _load(group, chosen.get(group, default)) for group, default in groups.items()})
    defaults: dict[str, Any] = OmegaConf.to_container(made, resolve=True)  # type: ignore[assignment]
    overrides = [f"{group}={choice}" for group, choice in chosen.items() if choice != groups[group]]
    changed, left_out = _changes(config, defaults)
    keys = [f"{key}={_text(value)}" for key, value in changed.items() if key not in _NOT_GIVEN]
    return Command((*overrides, *keys), tuple(left_out))


def _groups(base: DictConfig) -> dict[str, str]:
    """Return the groups of keys with their default choices; takes them, and Hydra's own keys, out of ``base``."""
    entries = [dict(entry) for entry in base.pop("defaults") if isinstance(entry, DictConfig)]
    base.pop("hydra")
    named = {str(group): choice for entry in entries for group, choice in entry.items()}
    of_all = ("launcher", "experiment")  # they set keys of other groups
    return {group: str(choice) for group, choice in named.items() if "/" not in group and group not in of_all}


@cache
def _load(group: str, choice: str) -> Any:
    """Return a choice's keys, those of the files that it builds on included."""
    loaded = OmegaConf.load(CONF / group / f"{choice}.yaml")
    assert isinstance(loaded, DictConfig)
    parents = [name for name in loaded.pop("defaults", ()) if name != "_self_"]
    return OmegaConf.merge(*(_load(group, parent) for parent in parents), loaded)


def _choose(group: str, values: Mapping[str, Any]) -> str:
    """Return the choice of a group that needs the fewest keys beside it."""
    names = choices(group)
    if values.get("name") in names:
        return str(values["name"])
    if group in _ANY:
        return _ANY[group]
    offered = {name: OmegaConf.to_container(_load(group, name)) for name in names}
    return min(names, key=lambda name: len(_changes(values, offered[name])[0]))  # type: ignore[arg-type]


def _changes(
    config: Mapping[str, Any], defaults: Mapping[str, Any], prefix: str = ""
) -> tuple[dict[str, Any], list[str]]:
    """Return the dotted keys that differ from their defaults with their values, and those that have no default."""
    changed: dict[str, Any] = {}
    unknown: list[str] = []
    for name, value in config.items():
        key = f"{prefix}{name}"
        if name not in defaults and prefix != f"{_OPEN}.":
            unknown.append(key)
        elif isinstance(value, Mapping) and isinstance(defaults.get(name), Mapping):
            inner, not_there = _changes(value, defaults[name], f"{key}.")
            changed |= inner
            unknown += not_there
        elif name not in defaults or value != defaults[name] or type(value) is not type(defaults[name]):
            changed[key] = value
    return changed, unknown


def _text(value: Any) -> str:
    """Return a value as Hydra's command line reads it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_text(key)}: {_text(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(_text, value)) + "]"
    if not isinstance(value, str | Path):
        return repr(value)
    text = str(value)
    if _PLAIN.fullmatch(text) and text.lower() not in _OTHER_THAN_TEXT:
        return text
    quoted = re.sub(r'(\\*)"', r'\1\1\\"', text)  # a backslash counts only before a quote
    quoted = re.sub(r"(\\+)$", r"\1\1", quoted)
    return f'"{quoted}"'
