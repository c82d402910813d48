"""What the paper's figures 2 to 5 draw: curves of the runs, and the published numbers as marks."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tracefl.paper.collected_run import CollectedRun
from tracefl.paper.exhibits import Exhibit, words_of
from tracefl.paper.grid_points import GridPoint, point_of, pretty
from tracefl.paper.published import find_published
from tracefl.paper.rule_findings import SeedMean, over_seeds
from tracefl.paper.settings_words import tell_apart
from tracefl.records.naming import fingerprint

SUSPECT_MEASURES = ("localization_accuracy", "chance_accuracy", "global_accuracy")
"""What is drawn; over anything but the rounds, means over the rounds, and the global accuracy of the best round."""
_OF_RUNS = {"global_accuracy": "best_global_accuracy"}  # in a run's row
_SIZE = ("num_clients", "clients_per_round", "num_rounds")
CURVE_COLUMNS = (
    *("setting", "model", "dataset", "alpha", "num_clients", "clients_per_round", "num_rounds", "noise", "clip"),
    *("provenance", "round", "seeds"),
    *(f"{measure}{end}" for measure in SUSPECT_MEASURES for end in ("", "_spread")),
    *("published_localization_accuracy", "published_worst_round_localization_accuracy"),
    "published_best_global_accuracy",
)
"""Of the CSV beside a figure: fractions, mean and standard deviation over seeds; 0 seeds: there is no run."""


@dataclass(frozen=True)
class Mark:
    """A published number: its ``SUSPECT_MEASURES`` name or ``worst_round``, and its x; None for all rounds."""

    measure: str
    x: float | None
    value: float


@dataclass(frozen=True)
class Panel:
    """One pair of axes.

    Attributes:
        title: Its setting.
        runs: The runs it shows.
        curves: For each of ``SUSPECT_MEASURES``: x to mean and spread over seeds; None where nothing was measured.
        marks: Published numbers of the same model and data set.
        same_size: The runs have the published setting, with the published model and pretrained weights.
        ticks: The x values of the paper's grid and of the runs; empty over rounds.
    """

    title: str
    runs: Sequence[CollectedRun]
    curves: Mapping[str, Mapping[float, SeedMean | None]]
    marks: Sequence[Mark]
    same_size: bool
    ticks: Sequence[float]

    @property
    def words(self) -> str:
        """The title on one line."""
        return " ".join(self.title.split())


def figure_pages(exhibit: Exhibit, runs: Sequence[CollectedRun]) -> dict[str, list[Panel]]:
    """Return a figure's pages with their panels, those of the paper in its order, then others.

    Args:
        exhibit: Figure 2, 3, 4 or 5.
        runs: Usable ones.

    Returns:
        Page subtitle to panels. Figure 2 has a page per alpha, the others one page with an empty subtitle.
    """
    pages: dict[str, list[CollectedRun]] = {}
    for run in runs:
        pages.setdefault(_page(exhibit, point_of(run.config)), []).append(run)
    return {words: _panels(exhibit, page) for words, page in sorted(pages.items())}


def on_page(exhibit: Exhibit, words: str, points: Iterable[GridPoint]) -> list[GridPoint]:
    """Return the grid points on a page of a figure."""
    return [point for point in points if _page(exhibit, point) == words]


def size_words(runs: Sequence[CollectedRun]) -> str:
    """Return the size of the runs, such as ``10 clients, 4 a round, 3 rounds``; values that differ as a range."""
    points = [point_of(run.config) for run in runs]
    words = []
    for field, name in zip(_SIZE, ("clients", "a round", "rounds"), strict=True):
        values = sorted({getattr(point, field) for point in points})
        words.append(f"{values[0]} {name}" if len(values) == 1 else f"{values[0]} to {values[-1]} {name}")
    weights = {bool(run.row["pretrained"]) for run in runs}
    words += ["models of other sizes"] if any(run.config.model.config for run in runs) else []
    return ", ".join([*words, "random weights"] if weights == {False} else words)


def curve_rows(exhibit: Exhibit, panels: Iterable[Panel], missing: Iterable[GridPoint]) -> Iterator[dict[str, Any]]:
    """Yield one row for each point that is drawn, then one for each grid point without a run."""
    for panel in panels:
        by_x = {_x(exhibit, run): run for run in reversed(panel.runs)}
        for x in dict.fromkeys(x for curve in panel.curves.values() for x in curve):
            run = panel.runs[0] if exhibit.over == "round" else by_x.get(x)
            if run is None:  # a place of the grid without a run: below
                continue
            values = {measure: panel.curves[measure].get(x) for measure in SUSPECT_MEASURES}
            yield {
                **_place(point_of(run.config)),
                "setting": panel.words,
                "provenance": run.row["provenance"],
                "round": int(x) if exhibit.over == "round" else None,
                "seeds": max((value.seeds for value in values.values() if value), default=0),
                **{measure: value and value.mean for measure, value in values.items()},
                **{f"{measure}_spread": value and value.spread for measure, value in values.items()},
            }
    for point in missing:
        setting = words_of(point, exhibit.varied)
        yield dict.fromkeys(CURVE_COLUMNS) | _place(point) | {"setting": f"no run: {setting}", "seeds": 0}


def _panels(exhibit: Exhibit, runs: Iterable[CollectedRun]) -> list[Panel]:
    groups: dict[str, list[CollectedRun]] = {}
    for run in runs:
        groups.setdefault(fingerprint(_without_x(exhibit, run)), []).append(run)
    firsts = [group[0] for group in groups.values()]
    titles = tell_apart([_label(exhibit, run) for run in firsts], [_without_x(exhibit, run) for run in firsts])
    order = list(dict.fromkeys(_panel(exhibit, point) for point in exhibit.grid))

    def place(panel: Panel) -> tuple[int, str]:
        theirs = _panel(exhibit, point_of(panel.runs[0].config))
        return order.index(theirs) if theirs in order else len(order), panel.title

    return sorted(
        (_make_panel(exhibit, title, group) for title, group in zip(titles, groups.values(), strict=True)), key=place
    )


def _make_panel(exhibit: Exhibit, title: str, runs: Sequence[CollectedRun]) -> Panel:
    points = [point_of(run.config) for run in runs]
    theirs = [
        point
        for point in on_page(exhibit, _page(exhibit, points[0]), exhibit.grid)
        if _panel(exhibit, point) == _panel(exhibit, points[0])
    ]
    over_rounds = exhibit.over == "round"
    ticks = set() if over_rounds else {getattr(point, exhibit.over) for point in (*theirs, *points)}
    return Panel(
        title=title,
        runs=runs,
        curves={
            measure: (_over_rounds if over_rounds else _over)(exhibit, measure, runs) for measure in SUSPECT_MEASURES
        },
        marks=[mark for point in theirs for mark in _marks(exhibit, point)],
        same_size=set(points) <= set(exhibit.grid)
        and all(run.row["pretrained"] and not run.config.model.config for run in runs),
        ticks=sorted(ticks),
    )


def _over_rounds(exhibit: Exhibit, measure: str, runs: Sequence[CollectedRun]) -> dict[float, SeedMean | None]:
    del exhibit
    curves = [run.curve(measure) for run in runs]
    rounds = sorted({number for curve in curves for number in curve})
    return {number: over_seeds(curve.get(number) for curve in curves) for number in rounds}


def _over(exhibit: Exhibit, measure: str, runs: Sequence[CollectedRun]) -> dict[float, SeedMean | None]:
    """Return a measure over the x axis; None at grid points without a run, so that the line breaks there."""
    points = [point for point in exhibit.grid if _panel(exhibit, point) == _panel(exhibit, point_of(runs[0].config))]
    xs = {getattr(point, exhibit.over) for point in points} | {_x(exhibit, run) for run in runs}
    column = _OF_RUNS.get(measure, measure)
    return {x: over_seeds(run.row[column] for run in runs if _x(exhibit, run) == x) for x in sorted(xs)}


def _marks(exhibit: Exhibit, point: GridPoint) -> Iterator[Mark]:
    published = find_published(point)
    if published is None:
        return
    x = None if exhibit.over == "round" else getattr(point, exhibit.over)
    yield Mark("localization_accuracy", x, published.localization)
    yield Mark("global_accuracy", x, published.best_global)
    if x is None:
        yield Mark("worst_round", x, published.worst_round)


def _x(exhibit: Exhibit, run: CollectedRun) -> float:
    return float("nan") if exhibit.over == "round" else float(getattr(point_of(run.config), exhibit.over))


def _place(point: GridPoint) -> dict[str, Any]:
    fields = ("model", "dataset", "alpha", *_SIZE, "noise", "clip")
    published = find_published(point)
    return {
        **{field: getattr(point, field) for field in fields},
        "published_localization_accuracy": published and published.localization,
        "published_worst_round_localization_accuracy": published and published.worst_round,
        "published_best_global_accuracy": published and published.best_global,
    }


def _page(exhibit: Exhibit, point: GridPoint) -> str:
    return words_of(point, ["alpha"]) if exhibit.over == "round" and "alpha" in exhibit.varied else ""


def _panel(exhibit: Exhibit, point: GridPoint) -> tuple[Any, ...]:
    """Return the key that grid points of one panel share."""
    return point.model, point.dataset, point.clip if "clip" in exhibit.varied else None


def _label(exhibit: Exhibit, run: CollectedRun) -> str:
    point = point_of(run.config)
    clip = [words_of(point, ["clip"])] if "clip" in exhibit.varied else []
    preset = [] if run.row["provenance"] == "artifact" else [str(run.row["provenance"])]  # the paper's goes unsaid
    return f"{pretty(point.model)}\n{', '.join([pretty(point.dataset), *clip, *preset])}"


def _without_x(exhibit: Exhibit, run: CollectedRun) -> dict[str, Any]:
    """Return a run's configuration without what the x axis shows."""
    config = {**run.config.resolved, "seed": 0}
    if exhibit.over == "alpha":
        config["dirichlet_alpha"] = 0
    if exhibit.over == "noise":
        config["privacy"] = {**config["privacy"], "noise_multiplier": 0}
    return config
