"""The paper's figures and tables: which runs each is made of, and which of them a folder lacks."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from tracefl.learning.faults.words import NO_FAULT
from tracefl.paper.collected_run import CollectedRun
from tracefl.paper.grid_points import GridPoint, point_of, point_of_job, pretty
from tracefl.paper.runs import JOBS, Overrides
from tracefl.records.naming import fingerprint


@dataclass(frozen=True)
class Exhibit:
    """A figure or a table of the paper.

    Attributes:
        kind: ``figure`` or ``table``.
        number: Its number in the paper.
        title: What it shows.
        keys: ``exp_key`` of its runs: the job scripts', then the Flower app's.
        jobs: Its runs in the paper, as in the job scripts.
        varied: Fields of ``GridPoint`` that its runs vary, beside model and data set.
        over: A figure's x axis: ``round`` or one of ``varied``; empty without an x axis.
        of_faults: Its runs look for faulty clients.
        of_classes: It has a page by class too.
        borrowed: ``exp_key`` of another figure, whose runs are used too where they match one of this grid's points.
    """

    kind: str
    number: int
    title: str
    keys: tuple[str, ...]
    jobs: Sequence[Overrides]
    varied: tuple[str, ...]
    over: str = ""
    of_faults: bool = False
    of_classes: bool = False
    borrowed: str = ""

    @property
    def name(self) -> str:
        """The name of its files."""
        return f"{self.kind}{self.number}"

    @cached_property
    def grid(self) -> list[GridPoint]:
        """The grid points of its runs in the paper."""
        return [point_of_job(overrides) for overrides in self.jobs]

    def has(self, run: CollectedRun) -> bool:
        """Return whether a run is one of its own, by the run's ``exp_key``."""
        key = run.config.exp_key
        if key == self.borrowed:
            point = point_of(run.config)
            places = {(p.model, *_values(p, self.varied)) for p in self.grid}
            return (point.model, *_values(point, self.varied)) in places
        return key in self.keys

    def missing(self, runs: Iterable[CollectedRun]) -> list[GridPoint]:
        """Return the grid points without a run."""
        there = {point_of(run.config) for run in runs}
        return [point for point in self.grid if point not in there]


def usable_runs(exhibit: Exhibit, runs: Iterable[CollectedRun]) -> tuple[list[CollectedRun], list[str]]:
    """Return the runs that an exhibit can be made of, and why each of the others is left out."""
    usable: list[CollectedRun] = []
    left_out: list[str] = []
    seen: dict[tuple[str, int], str] = {}
    for run in runs:
        name, key = str(run.row["folder"]), (fingerprint(run.config.resolved), run.config.seed)
        reason = f"is the same run as {seen[key]}" if key in seen else _rejection_reason(exhibit, run)
        if reason:
            left_out.append(f"{name} {reason}")
        else:
            seen[key] = name
            usable.append(run)
    return usable, left_out


def missing_lines(exhibit: Exhibit, missing: Sequence[GridPoint]) -> list[str]:
    """Return the grid points as text, one line for all that differ only in the first varied field."""
    first = exhibit.varied[0]
    lines: dict[str, list[str]] = {}
    for point in missing:
        rest = words_of(point, exhibit.varied[1:])
        setting = f"{data_words(point)}, {rest}" if rest else data_words(point)
        lines.setdefault(setting, []).append(f"{getattr(point, first):g}")
    return [f"{setting}, {_WORDS[first].format(', '.join(values))}" for setting, values in lines.items()]


def words_of(point: GridPoint, fields: Iterable[str]) -> str:
    """Return some fields of a grid point as text, such as ``noise 0.003, clip 15``, without fields that are None."""
    values = {field: getattr(point, field) for field in fields}
    words = {field: value for field, value in values.items() if value not in (None, NO_FAULT)}
    return ", ".join(_WORDS[field].format(f"{v:g}" if isinstance(v, float) else v) for field, v in words.items())


def data_words(point: GridPoint) -> str:
    """Return model and data set."""
    return f"{pretty(point.model)} {pretty(point.dataset)}"


_WORDS = {
    "alpha": "alpha {}",
    "num_clients": "{} clients",
    "clients_per_round": "{} a round",
    "num_rounds": "{} rounds",
    "privacy": "privacy {}",
    "noise": "noise {}",
    "clip": "clip {}",
    "fault": "{}",
}


def _values(point: GridPoint, fields: Iterable[str]) -> tuple[object, ...]:
    return tuple(getattr(point, field) for field in fields)


def _rejection_reason(exhibit: Exhibit, run: CollectedRun) -> str:
    """Return why an exhibit cannot use a run; empty where it can."""
    point = point_of(run.config)
    if exhibit.of_faults:
        if run.suspects is None:
            return "looked for no faulty clients"
        return "had no misprediction to trace" if exhibit.kind == "figure" and not run.suspects.rounds else ""
    if point.fault != NO_FAULT:
        return f"has faulty clients ({point.fault})"
    if run.row["localization_accuracy"] is None:
        return "traced no input"
    if point.privacy != "none" and "noise" not in exhibit.varied:
        return f"has privacy={point.privacy}"
    if run.row["strategy"] != "fedavg":
        return f"has strategy={run.row['strategy']}"
    lacks = [field for field in ("alpha", "noise") if field in exhibit.varied and getattr(point, field) is None]
    return f"has no {' and no '.join(lacks)}" if lacks else ""


def _of(script: str, experiment: str) -> list[Overrides]:
    return [overrides for overrides in JOBS[script] if f"experiment={experiment}" in overrides]


_MILD = {"model=gpt", "privacy.noise_multiplier=0.003", "privacy.clipping_norm=15"}  # Table II's row in Figure 4's grid
_LOCALIZATION = "Localization accuracy of correct predictions"
EXHIBITS: dict[str, Exhibit] = {
    exhibit.name: exhibit
    for exhibit in (
        Exhibit(
            "figure", 2, f"{_LOCALIZATION}, 12 settings", ("figure2", "exp_1"), JOBS["training"], ("alpha",), "round"
        ),
        Exhibit(
            *("figure", 3, f"{_LOCALIZATION} over the Dirichlet alpha", ("figure3", "exp_2"), JOBS["dirichlet"]),
            *(("alpha",), "alpha"),
        ),
        Exhibit(
            *("figure", 4, f"{_LOCALIZATION} under differential privacy", ("figure4",), _of("dp", "figure4")),
            *(("noise", "clip"), "noise"),
        ),
        Exhibit(
            *("figure", 5, f"{_LOCALIZATION} over many rounds", ("figure5", "exp_3"), _of("scalability", "figure5")),
            *(("num_clients", "num_rounds"), "round"),
            of_classes=True,
        ),
        Exhibit(
            *("figure", 6, "Seconds that tracing a misprediction takes", ("table1",), JOBS["faulty"], ("alpha",)),
            of_faults=True,
        ),
        Exhibit(
            *("table", 1, "Localization of a client with flipped labels, from mispredictions", ("table1",)),
            *(JOBS["faulty"], ("alpha",)),
            of_faults=True,
        ),
        Exhibit(
            *("table", 2, f"{_LOCALIZATION} under more noise", ("table2",)),
            [o for o in _of("dp", "figure4") if set(o) >= _MILD] + _of("dp", "table2"),
            ("noise", "clip"),
            borrowed="figure4",
        ),
        Exhibit(
            *("table", 3, f"{_LOCALIZATION} with more clients", ("table3",), _of("scalability", "table3")),
            ("num_clients", "clients_per_round"),
        ),
    )
}
"""Every figure and table by name, as ``figure2``."""
