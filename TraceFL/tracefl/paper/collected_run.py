"""A run as one row of collected.csv, and a grid with one line for all runs that differ only in their seed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from tracefl.common.words import duration, percent
from tracefl.conf.constraints import choice_name
from tracefl.learning.faults.words import NO_FAULT, describe_fault, fault_order
from tracefl.paper.grid import Grid
from tracefl.paper.grid_points import noise_and_clip, point_of
from tracefl.paper.published import find_published
from tracefl.paper.rule_findings import RunSuspects, run_suspects
from tracefl.paper.settings_words import tell_apart
from tracefl.records.naming import fingerprint
from tracefl.records.reading import read_results
from tracefl.records.run import StoredRun
from tracefl.records.settings import Question, Settings
from tracefl.records.status import RunState, read_run_state

_MEANS = (
    "localization_accuracy",
    "chance_accuracy",
    "top_holder_accuracy",
    "counterfactual_agreement",
    "counterfactual_correlation",
)
_PUBLISHED = ("published localization", "published worst round", "published global")
_CAPTION = (
    "Percent: means over rounds and seeds, the worst round of all seeds, the best round's global accuracy. In brackets "
    "what a client drawn at random would score; it was not published. -: no such number. The CSV has all columns."
)


@dataclass(frozen=True)
class CollectedRun:
    """A run as the paper's figures and tables read it.

    Attributes:
        config: Its configuration.
        state: How far it is.
        row: Its row of collected.csv: setting and results, accuracies as fractions, None where nothing was measured.
        suspects: How well each rule found the faulty clients; None where the run did not look for any.
        rounds: A row of rounds.csv for each round, None where nothing was measured.
        path: Its folder.
    """

    config: Settings
    state: RunState
    row: Mapping[str, Any]
    suspects: RunSuspects | None = None
    rounds: Sequence[Mapping[str, Any]] = ()
    path: Path = Path()

    def curve(self, column: str) -> dict[int, float | None]:
        """Return a column of rounds.csv: round to value, None where nothing was measured."""
        return {row["round"]: row[column] for row in self.rounds}

    @property
    def setting(self) -> tuple[str, str]:
        """A key that is equal for runs that differ only in their seed."""
        return self.config.exp_key, fingerprint({**self.config.resolved, "seed": 0})


def read_run(folder: Path, shown_as: str, presets: Mapping[str, Question]) -> CollectedRun:
    """Read a run's folder; its rounds are compared with their checksums, and its tables are not read.

    Args:
        folder: The run's folder.
        shown_as: Its name in the row.
        presets: What each preset asks, by its name.

    Raises:
        RecordError: The folder is damaged.
    """
    run = StoredRun(folder)
    config = run.settings
    if run.is_complete:
        read_results(folder, config.num_rounds)
    state = read_run_state(folder, config.num_rounds)
    results = list(run.results(fitted=False))
    rounds = [result.row for result in results]
    published = find_published(point_of(config))
    row = {"folder": shown_as, "state": state.state, **_setting(config, presets), **_findings(rounds)}
    row |= {
        "seconds": None if state.seconds is None else round(state.seconds, 1),
        "published_localization_accuracy": published and published.localization,
        "published_worst_round_localization_accuracy": published and published.worst_round,
        "published_best_global_accuracy": published and published.best_global,
    }
    suspects = run_suspects([row for result in results for row in result.suspects])
    return CollectedRun(config, state, row, suspects, rounds, folder)


def settings_grid(runs: Sequence[CollectedRun]) -> Grid:
    """Return one line per setting: means over its seeds, and beside them the published numbers, if any line has one."""
    groups: dict[tuple[str, str], list[CollectedRun]] = {}
    for run in runs:
        groups.setdefault(run.setting, []).append(run)
    ordered = sorted(groups.values(), key=lambda group: (*_order(group[0].row), *fault_order(group[0].config.fault)))
    firsts = [group[0] for group in ordered]
    labels = tell_apart([_label(run.row) for run in firsts], [run.config.resolved for run in firsts])
    lines = [_line(label, [run.row for run in group]) for label, group in zip(labels, ordered, strict=True)]
    headings = [heading for heading in lines[0] if heading not in _PUBLISHED or any(line[heading] for line in lines)]
    return Grid(headings, [[line[heading] or "-" for heading in headings] for line in lines], _CAPTION, fixed=2)


def _line(label: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return the texts of a setting by heading, given the rows of its seeds; those not published are empty."""
    worst = min(rows, key=lambda row: _or(row["worst_round_localization_accuracy"], 2.0))

    def with_chance(localization: float | None, chance: float | None) -> str:
        return f"{_percent(localization)} ({_percent(chance)})"

    def published(column: str) -> str:
        return "" if rows[0][column] is None else _percent(rows[0][column])

    return {
        "setting": label,
        "seeds": str(len({row["seed"] for row in rows})),
        "localization accuracy (chance)": with_chance(
            _mean(rows, "localization_accuracy"), _mean(rows, "chance_accuracy")
        ),
        "published localization": published("published_localization_accuracy"),
        "worst round (chance)": with_chance(
            worst["worst_round_localization_accuracy"], worst["worst_round_chance_accuracy"]
        ),
        "published worst round": published("published_worst_round_localization_accuracy"),
        "best global": _percent(_mean(rows, "best_global_accuracy")),
        "published global": published("published_best_global_accuracy"),
        "top holder": _percent(_mean(rows, "top_holder_accuracy")),
        "counterfactual agreement": _percent(_mean(rows, "counterfactual_agreement")),
        "took": duration(_mean(rows, "seconds")),
    }


def _setting(config: Settings, presets: Mapping[str, Question]) -> dict[str, Any]:
    noise, clip = noise_and_clip(config.privacy)
    provenance = config.provenance
    named = [name for name, question in presets.items() if provenance is not None and provenance.question == question]
    return {
        "experiment": config.exp_key,
        "model": config.model.name,
        "pretrained": config.model.pretrained is not False,
        "dataset": config.dataset.name,
        "partition": config.dataset.partition,
        "dirichlet_alpha": config.dirichlet_alpha if config.dataset.partition == "dirichlet" else None,
        "num_clients": config.num_clients,
        "clients_per_round": config.clients_per_round,
        "num_rounds": config.num_rounds,
        "strategy": config.strategy.name,
        "privacy": choice_name(config.privacy),
        "noise_multiplier": noise,
        "clipping_norm": clip,
        "provenance": "off" if provenance is None else named[0] if named else "other",
        "fault": describe_fault(config.fault, config.num_clients),
        "seed": config.seed,
    }


def _findings(rounds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Summarise a run's rounds: means of the measured columns, the worst and the best round."""

    def values(column: str) -> list[float]:
        return [row[column] for row in rounds if row[column] is not None]

    found: dict[str, Any] = {"rounds_done": len(rounds)}
    found |= {column: fmean(values(column)) if values(column) else None for column in _MEANS}
    traced = [row for row in rounds if row["localization_accuracy"] is not None]
    worst = min(traced, key=lambda row: float(row["localization_accuracy"]), default=None)
    found["worst_round_localization_accuracy"] = None if worst is None else worst["localization_accuracy"]
    found["worst_round_chance_accuracy"] = None if worst is None else worst["chance_accuracy"]
    found["best_global_accuracy"] = max(values("global_accuracy"), default=None)
    return found


def _mean(rows: Sequence[Mapping[str, Any]], column: str) -> float | None:
    measured = [row[column] for row in rows if row[column] is not None]
    return fmean(measured) if measured else None


def _percent(fraction: float | None) -> str:
    return percent(fraction).removesuffix("%")


def _or(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value


_IN_ORDER = ("experiment", "model", "dataset", "provenance")
_NUMBERS_IN_ORDER = ("noise_multiplier", "clipping_norm", "dirichlet_alpha", "num_clients", "clients_per_round")


def _order(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return *(row[key] for key in _IN_ORDER), *(_or(row[key], -1.0) for key in _NUMBERS_IN_ORDER)


def _label(row: Mapping[str, Any]) -> str:
    spread = f"alpha {row['dirichlet_alpha']}" if row["partition"] == "dirichlet" else row["partition"]
    privacy = "" if row["privacy"] == "none" else f" {row['privacy']}"
    privacy += "" if row["noise_multiplier"] is None else f" noise {row['noise_multiplier']:g}"
    privacy += "" if row["clipping_norm"] is None else f" clip {row['clipping_norm']:g}"
    fault = "" if row["fault"] == NO_FAULT else f", {row['fault']}"
    strategy = "" if row["strategy"] == "fedavg" else f" {row['strategy']}"
    weights = "" if row["pretrained"] else ", random weights"  # the published runs have pretrained ones
    return (
        f"{row['experiment']} {row['model']} {row['dataset']} {spread}{privacy}, {row['clients_per_round']} of "
        f"{row['num_clients']}, {row['num_rounds']} rounds{strategy}, {row['provenance']}{fault}{weights}"
    )
