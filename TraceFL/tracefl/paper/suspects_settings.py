"""Runs that looked for faulty clients, grouped by setting: those of a group differ only in their seed."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tracefl.learning.faults.words import describe_fault, fault_order
from tracefl.paper.collected_run import CollectedRun
from tracefl.paper.rule_findings import RunSuspects
from tracefl.paper.settings_words import tell_apart
from tracefl.records.settings import Settings


@dataclass(frozen=True)
class Setting:
    """Runs of one setting.

    Attributes:
        label: The setting in a few words, more where another setting would have the same label.
        config: The configuration of one of the runs.
        row: One of the runs' rows of ``collected.csv``.
        found: What the rules found in each run; at least one.
        seeds: The runs' different seeds.
    """

    label: str
    config: Settings
    row: Mapping[str, Any]
    found: Sequence[RunSuspects]
    seeds: int

    @property
    def rounds(self) -> int:
        """Rounds with mispredicted inputs, over all runs."""
        return sum(found.rounds for found in self.found)

    @property
    def rounds_without_inputs(self) -> int:
        """Traced rounds without mispredicted inputs, over all runs."""
        return sum(found.rounds_without_inputs for found in self.found)

    def is_applicable(self, rule: str) -> bool:
        """Return whether a rule applies to some run's rounds, or was never tried."""
        asked = [found.rules[rule].applies for found in self.found if rule in found.rules]
        return any(asked) or not asked


def suspects_settings(runs: Iterable[CollectedRun]) -> list[Setting]:
    """Return the settings of the runs that looked for faulty clients, in order."""
    groups: dict[tuple[str, str], list[CollectedRun]] = {}
    for run in runs:
        if run.suspects is not None:
            groups.setdefault(run.setting, []).append(run)
    firsts = [group[0] for group in groups.values()]
    words = [f"{data_words(run.row)}, {describe_fault(run.config.fault, run.config.num_clients)}" for run in firsts]
    labels = tell_apart(words, [run.config.resolved for run in firsts])
    settings = [
        Setting(
            label,
            group[0].config,
            group[0].row,
            [run.suspects for run in group if run.suspects is not None],
            len({run.config.seed for run in group}),
        )
        for label, group in zip(labels, groups.values(), strict=True)
    ]
    return sorted(settings, key=lambda setting: _order(setting.config, setting.row))


def data_words(row: Mapping[str, Any]) -> str:
    """Return model, data set and how its examples are spread over the clients."""
    spread = f"alpha {row['dirichlet_alpha']}" if row["partition"] == "dirichlet" else row["partition"]
    return f"{row['model']} {row['dataset']} {spread}"


def _order(config: Settings, row: Mapping[str, Any]) -> tuple[Any, ...]:
    """By model, data, alpha and fault."""
    data = (row["model"], row["dataset"], row["partition"], row["dirichlet_alpha"] or 0.0)
    return *data, *fault_order(config.fault), row["experiment"]
