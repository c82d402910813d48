"""Labels of settings, with more words where two would be the same."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from tracefl.records.naming import CIRCUMSTANCES


def tell_apart(labels: Sequence[str], configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the labels; of those that are the same, each with the keys that differ.

    Args:
        labels: One for each setting.
        configs: The settings' configurations. The seed and what cannot change a number are passed over.
    """
    shared = {label for label, number in Counter(labels).items() if number > 1}
    if not shared:
        return list(labels)
    flats = [_flat(config) for config in configs]
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


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return what can make settings differ, keys dotted."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if not prefix and key in {*CIRCUMSTANCES, "seed"} - {"exp_key"}:
            continue
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat
