"""Tables that compare the rules that look for faulty clients: one line per setting, means and spread over its seeds."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from tracefl.learning.faults.words import fault_share, faulty_clients
from tracefl.paper.grid import Grid
from tracefl.paper.grid_points import GridPoint, point_of
from tracefl.paper.published import find_published_suspects
from tracefl.paper.rule_findings import SeedMean, over_seeds, rule_names, rule_over_seeds
from tracefl.paper.suspects_settings import Setting
from tracefl.records.tables import SUSPECT_MEASURES

_ACCURACIES = (
    "Localization accuracy in percent: how often the highest suspicion is a faulty client's. Mean over the rounds with "
    "mispredicted inputs, then mean ± standard deviation over seeds; chance: a client drawn at random. rounds: with "
    "such inputs, of those traced, over all seeds. NA: the rule does not apply. -: nothing was measured."
)
_SECONDS = (
    "Seconds an input, mean over runs: what a rule takes for a round, divided by the round's mispredicted inputs, on "
    "the same rounds; FedDebug's random inputs are ten a round, whatever those are. Published (Figure 6, on other "
    "hardware): provenance 3.7 on average, 2.6 to 5.9; FedDebug 1.1."
)
_OF_SETTING = (
    *("experiment", "model", "pretrained", "dataset", "partition", "dirichlet_alpha", "num_clients"),
    *("clients_per_round", "num_rounds", "privacy", "provenance", "fault"),
)
SUSPECTS_COLUMNS = (
    *("setting", *_OF_SETTING, "fault_share", "faulty_clients", "seeds", "rounds_without_inputs"),
    *("rule", "applies", "rounds", "seeds_measured", *SUSPECT_MEASURES),
    *("localization_accuracy_spread", "whole_localization_spread"),
    *("seconds_per_input", "seconds_per_round", "published_localization_accuracy", "note"),
)
"""Of ``suspects_collected.csv``: what the setting is, then what one rule found there, means over seeds."""


def accuracy_grid(settings: Sequence[Setting], only: Sequence[str] = (), missing: Sequence[GridPoint] = ()) -> Grid:
    """Return localization accuracies, one column per rule, beside chance and, where there are any, Table I's numbers.

    Args:
        settings: The settings' findings.
        only: The rules to show beside provenance; empty for all.
        missing: The paper's grid points without a run, which are listed below with the published numbers.
    """
    asked = rule_names(found for setting in settings for found in setting.found)
    rules = [rule for rule in asked if rule in ("provenance", *only) or not only]
    published = [find_published_suspects(point_of(setting.config)) for setting in settings]
    theirs = ("artifact", "feddebug") if any(published) or missing else ()
    rows = []
    for setting, paper in zip(settings, published, strict=True):
        cells = {rule: _accuracy(setting, rule) for rule in rules}
        chance = _mean(found.chance for found in setting.found)
        traced = setting.rounds + setting.rounds_without_inputs
        rows.append(
            [
                setting.label,
                str(setting.seeds),
                f"{setting.rounds} of {traced}",
                cells.pop("provenance", "-"),
                "-" if chance is None else f"{100 * chance:.1f}",
                *cells.values(),
                *(_published(paper, rule) for rule in theirs),
            ]
        )
    others = [rule for rule in rules if rule != "provenance"]
    for point in missing:
        paper = find_published_suspects(point)
        label = f"{point.model} {point.dataset} alpha {point.alpha}, {point.fault}"
        rows.append(
            [label, "0", "no run", "-", "-", *("-" for _ in others), *(_published(paper, rule) for rule in theirs)]
        )
    headings = ["setting", "seeds", "rounds", "provenance", "chance", *others, *(f"published {r}" for r in theirs)]
    return Grid(
        headings,
        rows,
        _ACCURACIES + (" published: Table I of the paper; its formula is the rule artifact." if theirs else ""),
        fixed=5,
    )


def missing_suspects_rows(missing: Iterable[GridPoint]) -> Iterator[dict[str, Any]]:
    """Yield a row like ``suspects_rows``' for each grid point without a run and each rule with a published number."""
    for point in missing:
        place = {
            "setting": f"no run: {point.model} {point.dataset} alpha {point.alpha}, {point.fault}",
            "model": point.model,
            "dataset": point.dataset,
            "dirichlet_alpha": point.alpha,
            "num_clients": point.num_clients,
            "clients_per_round": point.clients_per_round,
            "num_rounds": point.num_rounds,
            "fault": point.fault,
            "seeds": 0,
        }
        for rule, published in find_published_suspects(point).items():
            more = {"rule": rule, "published_localization_accuracy": published}
            yield dict.fromkeys(SUSPECTS_COLUMNS) | place | more


def seconds_grid(settings: Sequence[Setting]) -> Grid:
    """Return seconds per input, one row per model and data set, one column per rule, as in the paper's Figure 6."""
    groups = _by_data(settings)
    rules = rule_names(found for setting in settings for found in setting.found)
    rows = [
        [label, *(_seconds(row.get(rule), groups[label], rule) for rule in rules)]
        for label, row in seconds_per_input(settings).items()
    ]
    return Grid(["model and data", *rules], rows, _SECONDS)


def seconds_per_input(settings: Sequence[Setting]) -> dict[str, dict[str, float]]:
    """Return each timed rule's seconds per input, mean over the runs of a model and data set."""
    seconds: dict[str, dict[str, float]] = {}
    for label, group in _by_data(settings).items():
        everyone = [found for setting in group for found in setting.found]
        rules = rule_names(everyone)
        found = [one for one in everyone if set(one.rules) == set(rules)]  # only then are all on the same rounds
        means = {rule: _mean(one.rules[rule].seconds_per_input for one in found if rule in one.rules) for rule in rules}
        seconds[label] = {rule: mean for rule, mean in means.items() if mean is not None}
    return seconds


def suspects_rows(settings: Sequence[Setting]) -> Iterator[dict[str, Any]]:
    """Yield all findings, one row per setting and rule; fractions, None where nothing was measured."""
    for setting in settings:
        of_setting = {
            **{column: setting.row[column] for column in _OF_SETTING},
            "setting": setting.label,
            "fault_share": fault_share(setting.config.fault),
            "faulty_clients": faulty_clients(setting.config.fault),
            "seeds": setting.seeds,
            "rounds_without_inputs": setting.rounds_without_inputs,
        }
        # A setting without any mispredicted input says so in a line of its own.
        for rule in dict.fromkeys(rule for found in setting.found for rule in found.rules) or ["provenance"]:
            yield {**of_setting, **_of_rule(setting, rule)}


def _of_rule(setting: Setting, rule: str) -> dict[str, Any]:
    runs = [found.rules[rule] for found in setting.found if rule in found.rules]
    values = {name: rule_over_seeds(setting.found, rule, name) for name in SUSPECT_MEASURES}
    accuracy, whole = values["localization_accuracy"], values["whole_localization"]
    return {
        **{name: value and value.mean for name, value in values.items()},
        "rule": rule,
        "applies": setting.is_applicable(rule),
        "rounds": sum(run.rounds for run in runs),
        "seeds_measured": accuracy.seeds if accuracy else 0,
        "localization_accuracy_spread": accuracy and accuracy.spread,
        "whole_localization_spread": whole and whole.spread,
        "seconds_per_input": _mean(run.seconds_per_input for run in runs),
        "seconds_per_round": _mean(run.seconds_per_round for run in runs),
        "published_localization_accuracy": find_published_suspects(point_of(setting.config)).get(rule),
        "note": next((run.note for run in runs if run.note), ""),
    }


def _by_data(settings: Sequence[Setting]) -> dict[str, list[Setting]]:
    groups: dict[str, list[Setting]] = {}
    for setting in settings:
        row = setting.row
        size = " ".join(f"{key}={value}" for key, value in setting.config.model.config.items())
        label = f"{row['model']} {row['dataset']}, {row['clients_per_round']} clients, {setting.config.device}"
        groups.setdefault(f"{label}, {size}" if size else label, []).append(setting)
    return groups


def _seconds(seconds: float | None, settings: Sequence[Setting], rule: str) -> str:
    if seconds is not None:
        return f"{seconds:.2g}"
    return "-" if all(setting.is_applicable(rule) for setting in settings) else "NA"


def _accuracy(setting: Setting, rule: str) -> str:
    return _percents(rule_over_seeds(setting.found, rule)) if setting.is_applicable(rule) else "NA"


def _percents(value: SeedMean | None) -> str:
    if value is None:
        return "-"
    return f"{100 * value.mean:.1f}" + ("" if value.spread is None else f" ± {100 * value.spread:.1f}")


def _published(paper: Mapping[str, float | None], rule: str) -> str:
    if rule not in paper:
        return "-"
    fraction = paper[rule]
    return "NA" if fraction is None else f"{100 * fraction:.1f}"


def _mean(values: Iterable[float | None]) -> float | None:
    measured = over_seeds(values)
    return None if measured is None else measured.mean
