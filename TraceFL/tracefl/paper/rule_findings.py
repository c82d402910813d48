"""How well each rule finds the faulty clients: means of ``suspects.csv`` over rounds, then over seeds."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from tracefl.questions.suspects import NOBODY_FAULTY, mean_suspects
from tracefl.records.tables import SUSPECT_MEASURES

FIRST = ("provenance", "feddebug")  # of the rules, wherever they are listed; chance is listed separately
CHANCE = "chance"


@dataclass(frozen=True)
class RuleFindings:
    """What one rule found in one run.

    Attributes:
        means: ``SUSPECT_MEASURES``, each the mean over the rounds where it was measured, None where it never was.
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
        """The rule applies to the run's rounds."""
        return self.rounds > 0 or not self.note


@dataclass(frozen=True)
class RunSuspects:
    """What the rules found in one run.

    Attributes:
        rounds: Rounds with mispredicted inputs.
        rounds_without_inputs: Traced rounds without any, though a participant was faulty; no rule is judged by them.
        chance: What a client drawn at random would score, mean over the rounds with inputs; None without.
        rules: Each rule by name.
    """

    rounds: int
    rounds_without_inputs: int
    chance: float | None
    rules: Mapping[str, RuleFindings]


@dataclass(frozen=True)
class SeedMean:
    """A number over seeds: mean, standard deviation (None for one seed alone) and how many seeds have it."""

    mean: float
    spread: float | None
    seeds: int


def run_suspects(rows: Sequence[Mapping[str, Any]]) -> RunSuspects | None:
    """Return what the rules found in a run, given its rows of suspects.csv; None without any."""
    if not rows:
        return None
    with_inputs = [row for row in rows if row["inputs"]]
    chances = {row["round"]: row["chance_accuracy"] for row in with_inputs if row["chance_accuracy"] is not None}
    return RunSuspects(
        rounds=len({row["round"] for row in with_inputs}),
        rounds_without_inputs=len({r["round"] for r in rows if not r["inputs"] and r["note"] != NOBODY_FAULTY}),
        chance=fmean(chances.values()) if chances else None,
        rules={rule: _findings(means) for rule, means in mean_suspects(with_inputs).items()},
    )


def rule_names(runs: Iterable[RunSuspects]) -> list[str]:
    """Return the rules of all runs except chance: provenance, FedDebug, then the others in order of appearance."""
    names = dict.fromkeys(rule for run in runs for rule in run.rules)
    return [*(rule for rule in FIRST if rule in names), *(r for r in names if r not in (*FIRST, CHANCE))]


def over_seeds(values: Iterable[float | None]) -> SeedMean | None:
    """Return mean and standard deviation (n - 1) of what was measured, None where nothing was."""
    measured = [value for value in values if value is not None]
    if not measured:
        return None
    return SeedMean(fmean(measured), stdev(measured) if len(measured) > 1 else None, len(measured))


def rule_over_seeds(runs: Iterable[RunSuspects], rule: str, measured: str = "localization_accuracy") -> SeedMean | None:
    """Return one of a rule's ``SUSPECT_MEASURES`` over the runs of one setting, None where it was never measured."""
    return over_seeds(run.rules[rule].means[measured] for run in runs if rule in run.rules)


def _findings(means: Mapping[str, Any]) -> RuleFindings:
    return RuleFindings(
        means={name: means[name] for name in SUSPECT_MEASURES},
        rounds=means["rounds"],
        seconds_per_input=means["seconds_per_input"],
        seconds_per_round=means["seconds_per_round"],
        note=means["note"],
    )
