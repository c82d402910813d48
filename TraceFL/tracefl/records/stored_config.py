"""config.yaml of a run's folder: plain data, whoever wrote it.

A run writes its configuration resolved. So nothing in it is looked up: no interpolation, which could read the
environment of whoever opens the folder, no anchor, which could stand for billions of values, no tag, no target.
"""

from typing import Any

import yaml
from omegaconf._utils import get_yaml_loader

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the same in C, where it was built
_DEEPEST = 20  # collections in one another


class _ConfigLoader(_Loader):
    """Makes what OmegaConf makes of a file, in a tenth of its time: 1e-3 is a number, a date a text."""

    yaml_implicit_resolvers = get_yaml_loader().yaml_implicit_resolvers

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return a mapping's keys and values."""
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        twice = next((key for number, key in enumerate(keys) if key in keys[:number]), None)
        if twice is not None:
            raise ValueError(f"it has {twice!r} twice")
        made: dict[Any, Any] = super().construct_mapping(node, deep=deep)
        return made


def parse_config(data: bytes) -> dict[str, Any]:
    """Return what a config.yaml says.

    Raises:
        ValueError: It is no mapping of plain values.
        YAMLError: It is no YAML.
    """
    text = data.decode()
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise ValueError("it has an anchor or an alias, and a run writes none")
        if getattr(event, "tag", None) is not None:
            raise ValueError(f"it has the tag {event.tag}, and a run writes none")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > _DEEPEST:
                raise ValueError(f"it is nested more than {_DEEPEST} deep")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.ScalarEvent) and ("${" in event.value or event.value == "_target_"):
            raise ValueError(f"it has {event.value!r}, which would be looked up or called here; a run writes neither")
    config = yaml.load(text, Loader=_ConfigLoader)
    if config is None:
        return {}
    if not isinstance(config, dict):
        raise ValueError("it is no run's configuration")
    return {str(key): value for key, value in config.items()}
