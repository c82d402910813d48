"""The paper's tables 1 to 3, each as a grid of texts and as rows of a CSV."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from tracefl.paper.collected_run import CollectedRun
from tracefl.paper.exhibits import Exhibit, data_words, words_of
from tracefl.paper.grid import Grid
from tracefl.paper.grid_points import GridPoint, point_of, pretty_words
from tracefl.paper.published import find_published
from tracefl.paper.rule_findings import SeedMean, over_seeds
from tracefl.paper.settings_words import tell_apart
from tracefl.paper.suspects_settings import suspects_settings
from tracefl.paper.suspects_table import SUSPECTS_COLUMNS, accuracy_grid, missing_suspects_rows, suspects_rows

RULES = ("provenance", "artifact", "feddebug")
"""Of Table I and Figure 6: ours, the published formula, and what the paper compares with."""
_MEASURES = ("best_global_accuracy", "localization_accuracy", "chance_accuracy")
_FIELDS = ("model", "dataset", "alpha", "num_clients", "clients_per_round", "num_rounds", "noise", "clip")
_COLUMNS = (
    *("setting", *_FIELDS, "provenance", "pretrained", "seeds"),
    *(f"{measure}{end}" for measure in _MEASURES for end in ("", "_spread")),
    *("published_best_global_accuracy", "published_localization_accuracy"),
)
_CAPTION = (
    "Percent, mean ± standard deviation over seeds; localization and chance (a client drawn at random): means over the "
    "rounds, global: the best round. published: the same setting in the paper, without its chance level, which was not "
    "published. -: no such number."
)


def make_table(
    exhibit: Exhibit, runs: Sequence[CollectedRun], missing: Sequence[GridPoint]
) -> tuple[Grid, Sequence[str], list[dict[str, Any]]]:
    """Return a table as a grid of texts, and its CSV's columns and rows, with accuracies as fractions.

    Args:
        exhibit: Table 1, 2 or 3.
        runs: Usable runs.
        missing: The paper's grid points without a run, which are listed as such.
    """
    if exhibit.of_faults:
        settings = suspects_settings(runs)
        found = [row for row in suspects_rows(settings) if row["rule"] in RULES]
        grid = accuracy_grid(settings, RULES, missing)
        grid = replace(grid, rows=[[pretty_words(row[0]), *row[1:]] for row in grid.rows])
        return grid, SUSPECTS_COLUMNS, [*found, *missing_suspects_rows(missing)]
    rows = [*_rows(exhibit, runs), *(_missing_row(exhibit, point) for point in missing)]
    places = list(exhibit.grid)
    rows.sort(key=lambda row: places.index(row["point"]) if row["point"] in places else len(places))
    grid = Grid(
        ["setting", "seeds", "global", "localization", "chance", "published global", "published localization"],
        [_texts(row) for row in rows],
        _CAPTION,
    )
    return grid, _COLUMNS, [{column: row[column] for column in _COLUMNS} for row in rows]


def _rows(exhibit: Exhibit, runs: Sequence[CollectedRun]) -> Iterator[dict[str, Any]]:
    """Yield one row per setting, means over its seeds."""
    groups: dict[tuple[str, str], list[CollectedRun]] = {}
    for run in runs:
        groups.setdefault(run.setting, []).append(run)
    firsts = [group[0] for group in groups.values()]
    labels = tell_apart([_label(exhibit, run) for run in firsts], [run.config.resolved for run in firsts])
    for label, group in zip(labels, groups.values(), strict=True):
        values = {measure: over_seeds(run.row[measure] for run in group) for measure in _MEASURES}
        yield {
            **_place(point_of(group[0].config)),
            "setting": label,
            "provenance": group[0].row["provenance"],
            "pretrained": group[0].row["pretrained"],
            "seeds": len({run.config.seed for run in group}),
            **{measure: value and value.mean for measure, value in values.items()},
            **{f"{measure}_spread": value and value.spread for measure, value in values.items()},
            "values": values,
        }


def _missing_row(exhibit: Exhibit, point: GridPoint) -> dict[str, Any]:
    setting = f"{words_of(point, exhibit.varied)}: no run"
    return {
        **dict.fromkeys(_COLUMNS),
        **_place(point),
        **{"setting": setting, "seeds": 0, "values": dict.fromkeys(_MEASURES)},
    }


def _place(point: GridPoint) -> dict[str, Any]:
    published = find_published(point)
    return {
        **{field: getattr(point, field) for field in _FIELDS},
        "point": point,
        "published_best_global_accuracy": published and published.best_global,
        "published_localization_accuracy": published and published.localization,
    }


def _label(exhibit: Exhibit, run: CollectedRun) -> str:
    """Return what the table varies, and for a run that is not one of the paper's everything else too."""
    point = point_of(run.config)
    preset = "" if run.row["provenance"] == "artifact" else f", {run.row['provenance']}"
    weights = "" if run.row["pretrained"] else ", random weights"
    sizes = ", model of another size" if run.config.model.config else ""
    words = words_of(point, exhibit.varied) + preset + weights + sizes
    if point in exhibit.grid:
        return words
    rest = [f for f in ("alpha", "num_clients", "clients_per_round", "num_rounds") if f not in exhibit.varied]
    return f"{words} ({data_words(point)}, {words_of(point, rest)})"


def _texts(row: Mapping[str, Any]) -> list[str]:
    published = [_percent(row[f"published_{name}"]) for name in ("best_global_accuracy", "localization_accuracy")]
    return [row["setting"], str(row["seeds"]), *(_measured(row["values"][name]) for name in _MEASURES), *published]


def _measured(value: SeedMean | None) -> str:
    if value is None:
        return "-"
    return _percent(value.mean) + ("" if value.spread is None else f" ± {100 * value.spread:.1f}")


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"
