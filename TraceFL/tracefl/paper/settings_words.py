"""Labels of settings, told apart where two would be the same."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from tracefl.records.naming import flatten, without_circumstances


def tell_apart(labels: Sequence[str], configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the labels, with the keys that differ added to those that are the same.

    Args:
        labels: One per setting.
        configs: The settings' configurations. The seed and keys that cannot change a result are ignored.
    """
    shared = {label for label, number in Counter(labels).items() if number > 1}
    if not shared:
        return list(labels)
    flats = [
        flatten({**without_circumstances(config), "exp_key": config["exp_key"], "seed": None}) for config in configs
    ]
    differing = {
        label: [
            key
            for key in dict.fromkeys(key for flat in flats for key in flat)
            if len({str(f.get(key)) for f, own in zip(flats, labels, strict=True) if own == label}) > 1
        ]
        for label in shared
    }
    return [
        label if label not in shared else f"{label} ({', '.join(f'{key}={flat.get(key)}' for key in differing[label])})"
        for label, flat in zip(labels, flats, strict=True)
    ]
