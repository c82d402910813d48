"""How well each rule finds the faulty clients: runs' ``suspects.csv``, gathered over rounds and seeds."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

MEASURES = (
    "localization_accuracy",
    "chance_accuracy",
    "mean_rank",
    "precision",
    "auroc",
    "whole_localization",
    "whole_rank",
    "whole_precision",
    "whole_auroc",
)
"""Of a rule: for its inputs one by one, then ``whole_``: for a round as a whole, suspicions summed over its inputs."""

FIRST = ("provenance", "feddebug")  # of the rules, wherever they are listed; chance has a place of its own
CHANCE = "chance"


@dataclass(frozen=True)
class RuleFindings:
    """What one rule found in one run.

    Attributes:
        means: ``MEASURES``, each the mean over the rounds where it was measured, None where it never was.
        rounds: Rounds with inputs that the rule applied to.
        seconds_per_input: Seconds of the rule over all rounds, divided by their inputs; None without.
        seconds_per_round: The same, divided by the rounds.
        note: Why the rule does not apply; empty where it does.
    """

    means: Mapping[str, float | None]
    rounds: int
    seconds_per_input: float | None
    seconds_per_round: float | None
    note: str

    @property
    def applies(self) -> bool:
        """The rule could look at the run's rounds."""
        return self.rounds > 0 or not self.note


@dataclass(frozen=True)
class RunSuspects:
    """What the rules found in one run.

    Attributes:
        rounds: Rounds with mispredicted inputs.
        rounds_without_inputs: Traced rounds without any: they say nothing of the rules.
        chance: What a client drawn at random would score, mean over the rounds with inputs; None without.
        rules: Each rule by name.
    """

    rounds: int
    rounds_without_inputs: int
    chance: float | None
    rules: Mapping[str, RuleFindings]


@dataclass(frozen=True)
class Measured:
    """A number over seeds: mean, standard deviation (None for one seed alone) and how many seeds have it."""

    mean: float
    spread: float | None
    seeds: int


def read_suspects(path: Path) -> RunSuspects | None:
    """Read a run's ``suspects.csv``, None where there is none.

    Raises:
        KeyError: It lacks a column.
        ValueError: It holds what is no number.
    """
    if not path.exists():
        return None
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    with_inputs = [row for row in rows if int(row["inputs"])]
    chances = {row["round"]: row["chance_accuracy"] for row in with_inputs if row["chance_accuracy"] != ""}
    return RunSuspects(
        rounds=len({row["round"] for row in with_inputs}),
        rounds_without_inputs=len({row["round"] for row in rows if not int(row["inputs"])}),
        chance=fmean(map(float, chances.values())) if chances else None,
        rules={
            rule: _findings([row for row in with_inputs if row["rule"] == rule])
            for rule in dict.fromkeys(row["rule"] for row in with_inputs)
        },
    )


def rule_names(runs: Iterable[RunSuspects]) -> list[str]:
    """Return the rules of all runs without chance: provenance, FedDebug, then the others as they come."""
    names = dict.fromkeys(rule for run in runs for rule in run.rules)
    return [*(rule for rule in FIRST if rule in names), *(r for r in names if r not in (*FIRST, CHANCE))]


def over_seeds(values: Iterable[float | None]) -> Measured | None:
    """Return mean and standard deviation (n - 1) of what was measured, None where nothing was."""
    measured = [value for value in values if value is not None]
    if not measured:
        return None
    return Measured(fmean(measured), stdev(measured) if len(measured) > 1 else None, len(measured))


def measure(runs: Iterable[RunSuspects], rule: str, measured: str = "localization_accuracy") -> Measured | None:
    """Return one of a rule's ``MEASURES`` over the runs of one setting, None where it was never measured."""
    return over_seeds(run.rules[rule].means[measured] for run in runs if rule in run.rules)


def _findings(rows: Sequence[Mapping[str, str]]) -> RuleFindings:
    """Summarise one rule's rows of the rounds with inputs."""

    def values(column: str, of: Sequence[Mapping[str, str]] = rows) -> list[float]:
        return [float(row[column]) for row in of if row[column] != ""]

    measured = [row for row in rows if row["seconds"] != ""]
    seconds = sum(values("seconds", measured))
    return RuleFindings(
        means={column: fmean(values(column)) if values(column) else None for column in MEASURES},
        rounds=len(measured),
        seconds_per_input=seconds / sum(values("inputs", measured)) if measured else None,
        seconds_per_round=seconds / len(measured) if measured else None,
        note=next((row["note"] for row in rows if row["note"]), ""),
    )
