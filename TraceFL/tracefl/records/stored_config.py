"""config.yaml of a run's folder: plain data, whoever wrote it.

A run writes its configuration resolved. So nothing in it is looked up: no interpolation, which could read the
environment of whoever opens the folder, no anchor, which could stand for billions of values, no tag, no target.
"""

import io
from typing import Any

import yaml
from omegaconf import OmegaConf

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the same in C, where it was built
_DEEPEST = 20  # collections in one another


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
    config = OmegaConf.to_container(OmegaConf.load(io.StringIO(text)))
    if not isinstance(config, dict):
        raise ValueError("it is no run's configuration")
    return {str(key): value for key, value in config.items()}
