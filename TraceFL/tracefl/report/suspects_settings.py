"""Runs that looked for faulty clients, by setting: those that differ in their seed alone belong together."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tracefl.config import CIRCUMSTANCES
from tracefl.report.collected import CollectedRun
from tracefl.report.faults import describe_fault, fault_order
from tracefl.report.suspects import RunSuspects


@dataclass(frozen=True)
class Setting:
    """Runs of one setting.

    Attributes:
        label: The setting in few words, and in more where another has the same.
        config: The configuration of one of the runs.
        row: What one of the runs is in ``collected.csv``.
        found: What the rules found in each run, one or more.
        seeds: Different seeds among the runs.
    """

    label: str
    config: Mapping[str, Any]
    row: Mapping[str, Any]
    found: Sequence[RunSuspects]
    seeds: int

    @property
    def rounds(self) -> int:
        """Rounds with mispredicted inputs, of all runs."""
        return sum(found.rounds for found in self.found)

    @property
    def rounds_without_inputs(self) -> int:
        """Traced rounds without any, of all runs."""
        return sum(found.rounds_without_inputs for found in self.found)

    def is_applicable(self, rule: str) -> bool:
        """Return whether a rule could look at the rounds of some run; also where it was not asked."""
        asked = [found.rules[rule].applies for found in self.found if rule in found.rules]
        return any(asked) or not asked


def suspects_settings(runs: Iterable[CollectedRun]) -> list[Setting]:
    """Return the settings of the runs that looked for faulty clients, in order."""
    groups: dict[tuple[str, str], list[CollectedRun]] = {}
    for run in runs:
        if run.suspects is not None:
            groups.setdefault(run.setting, []).append(run)
    firsts = [group[0] for group in groups.values()]
    settings = [
        Setting(
            label,
            group[0].config,
            group[0].row,
            [run.suspects for run in group if run.suspects is not None],
            len({run.config["seed"] for run in group}),
        )
        for label, group in zip(_labels(firsts), groups.values(), strict=True)
    ]
    return sorted(settings, key=lambda setting: _order(setting.config, setting.row))


def data_words(row: Mapping[str, Any]) -> str:
    """Return model, data set and how its examples are spread over the clients."""
    spread = f"alpha {row['dirichlet_alpha']}" if row["partition"] == "dirichlet" else row["partition"]
    return f"{row['model']} {row['dataset']} {spread}"


def _order(config: Mapping[str, Any], row: Mapping[str, Any]) -> tuple[Any, ...]:
    """By model, data, alpha and fault."""
    data = (row["model"], row["dataset"], row["partition"], row["dirichlet_alpha"] or 0.0)
    return *data, *fault_order(config), row["experiment"]


def _labels(runs: Sequence[CollectedRun]) -> list[str]:
    labels = [f"{data_words(run.row)}, {describe_fault(run.config)}" for run in runs]
    shared = {label for label, number in Counter(labels).items() if number > 1}
    if not shared:
        return labels
    flats = [_flat(run.config) for run in runs]
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
