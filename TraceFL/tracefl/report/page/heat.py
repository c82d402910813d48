"""Clients by classes: how many examples each holds, beside its mean contribution to each predicted class."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, nan

from tracefl.common.bootstrap import Bootstrap, Interval
from tracefl.learning.faults import ClientChange
from tracefl.provenance import TracedInput
from tracefl.report.page.record import RunRecord

MINUS = "\N{MINUS SIGN}"
MOST_CELLS = 4_000  # of both maps, so that a browser stays quick
LEAST_CLIENTS = 40
MOST_CLASSES = 40
_PAGE_WIDTH = 850  # the browser's pixels, without the clients' names


@dataclass(frozen=True)
class Cell:
    """A cell.

    Attributes:
        text: Its text.
        level: Its colour: depth 0 to 1, of a contribution with its sign, -1 to 1; None where nothing was measured.
        words: Its tooltip, the text in full.
        is_open: Whether a mean is not settled: of few inputs, or with zero in its interval.
    """

    text: str
    level: float | None
    words: str
    is_open: bool = False


@dataclass(frozen=True)
class Row:
    """A client's cells, one for each class that is shown.

    Attributes:
        name: The client.
        note: What is special about the client.
        held: Its label counts.
        contributed: Its mean contributions; empty in a second row of the same client.
    """

    name: str
    note: str
    held: tuple[Cell, ...]
    contributed: tuple[Cell, ...] = ()


@dataclass(frozen=True)
class HeatMap:
    """Both maps, with the same rows.

    Attributes:
        classes: (number, name) of the classes that are shown.
        rows: The clients that are shown.
        most_held: Examples where the left colour is deepest.
        most_contributed: Mean contribution in logits, without its sign, where the right colours are deepest; None where
            no input was traced.
        not_shown: What is not shown, one line each.
    """

    classes: tuple[tuple[int, str], ...]
    rows: tuple[Row, ...]
    most_held: int
    most_contributed: float | None
    not_shown: tuple[str, ...]

    @property
    def has_long_names(self) -> bool:
        """The classes' names do not fit above their columns."""
        return are_long(self.classes)

    @property
    def cell_width(self) -> int:
        """Width of a cell in the browser's pixels, so that both maps fit on a page where they can."""
        return min(44, max(24, _PAGE_WIDTH // (2 * len(self.classes))))


def are_long(classes: Sequence[tuple[int, str]]) -> bool:
    """Return whether the names of (number, name) of some classes do not fit above their columns."""
    return any(len(name) > 3 for _, name in classes)


def mean_contributions(traced: Sequence[TracedInput]) -> dict[tuple[str, int], tuple[float, int]]:
    """Return each client's mean contribution to the inputs that were predicted as a class, and how many those are.

    Only inputs of rounds that the client took part in count. Pairs of client and class without such inputs are omitted.
    """
    sums: defaultdict[tuple[str, int], float] = defaultdict(float)
    counts: defaultdict[tuple[str, int], int] = defaultdict(int)
    for t in traced:
        for client, contribution in t.contributions:
            sums[client, t.predicted] += contribution
            counts[client, t.predicted] += 1
    return {pair: (total / counts[pair], counts[pair]) for pair, total in sums.items()}


def mean_intervals(record: RunRecord, clients: Collection[str]) -> dict[tuple[str, int], Interval | None]:
    """Return the 95 % intervals of some clients' means by predicted class, by a bootstrap over the traced inputs."""
    values: defaultdict[tuple[str, int], list[tuple[int, float]]] = defaultdict(list)
    for _, t in record.traced:
        for client, contribution in t.contributions:
            if client in clients:
                values[client, t.predicted].append((t.input_index, contribution))
    if not values:
        return {}
    return Bootstrap((t.input_index for _, t in record.traced), record.settings.seed).by_key(values)


def heat_map(record: RunRecord) -> HeatMap:
    """Return a run's two maps.

    Where there are too many clients, the faulty ones are shown, then those with the largest contributions of either
    sign; of too many classes, the most predicted ones.
    """
    traced = [t for _, t in record.traced]
    means = mean_contributions(traced)
    held = record.run.label_counts.tolist()  # (num_clients, C)
    names = record.run.label_names
    classes = _shown_classes(traced, len(names))
    clients = shown_clients(record, means, max(LEAST_CLIENTS, MOST_CELLS // (2 * len(classes))))
    changed = changed_labels(record.run.changes)
    counted = [held[int(client)][c] for client in clients for c in classes]
    counted += [changed[client][c] for client in clients if client in changed for c in classes]
    most_held = max(1, *counted)
    finite = [abs(mean) for client in clients for c in classes if isfinite(mean := means.get((client, c), (nan, 0))[0])]
    most = max(finite, default=None)
    intervals = mean_intervals(record, set(clients))
    rows = []
    for client in clients:
        contributed = tuple(
            _contributed(client, names[c], means.get((client, c)), intervals.get((client, c)), most) for c in classes
        )
        note = "faulty" if client in record.faulty_clients else ""
        own = held[int(client)]
        rows.append(Row(client, note, tuple(_held(client, names[c], own[c], most_held) for c in classes), contributed))
        if client in changed:
            faulty = changed[client]
            cells = tuple(_held(f"{client} as trained on", names[c], faulty[c], most_held) for c in classes)
            rows.append(Row(client, "as trained on", cells))
    not_shown = [
        f"{shown} of {of} {what} are shown: {which}"
        for shown, of, what, which in (
            (len(clients), len(held), "clients", "the faulty ones, then those with the largest contributions"),
            (len(classes), len(names), "classes", "those that were predicted most often"),
        )
        if shown < of
    ]
    return HeatMap(tuple((c, names[c]) for c in classes), tuple(rows), most_held, most, tuple(not_shown))


def _held(client: str, name: str, examples: int, most: int) -> Cell:
    words = f"client {client}, {name}: {examples} training examples"
    return Cell(str(examples) if examples else "", examples / most, words)


def _contributed(
    client: str, name: str, mean: tuple[float, int] | None, ends: Interval | None, most: float | None
) -> Cell:
    if mean is None:
        return Cell("", None, f"client {client}, predicted {name}: no traced input")
    value, traced = mean
    words = (
        f"client {client}, predicted {name}: mean contribution {signed(value, 3)} logits over {traced} traced inputs"
    )
    if ends is not None:
        words += f", {ends.inputs} of them different; 95 % interval {signed(ends.low, 3)} to {signed(ends.high, 3)}"
    is_open = ends is None or not ends.is_settled
    if not most or not isfinite(value):
        return Cell(signed(value, 0), 0.0, words, is_open)
    return Cell(signed(value, _digits(most)), value / most, words, is_open)


def signed(value: float, digits: int) -> str:
    """Return a number with its sign, without the zero before its point and, rounded to nothing, without a sign."""
    text = f"{abs(value):.{digits}f}"
    if isfinite(value) and float(text) == 0:
        return "0"
    return (MINUS if value < 0 else "+") + (text[1:] if text.startswith("0.") else text)


def _digits(most: float) -> int:
    """Return how many digits after the point fit a cell, for numbers up to ``most``."""
    return 2 if most < 1 else 1 if most < 10 else 0


def changed_labels(changes: Iterable[ClientChange]) -> dict[str, Sequence[int]]:
    """Return the label counts that faulty clients train on, where the fault changes them."""
    return {
        change.client: change.faulty_label_counts
        for change in changes
        if change.faulty_label_counts != change.label_counts
    }


def shown_clients(record: RunRecord, means: Mapping[tuple[str, int], tuple[float, int]], most: int) -> list[str]:
    """Return the clients to show, ascending: at most ``most``, the faulty ones, then those with large contributions."""
    summed: defaultdict[str, float] = defaultdict(float)
    for (client, _), (mean, inputs) in means.items():
        summed[client] += abs(mean) * inputs
    everyone = [str(number) for number in range(len(record.run.label_counts))]
    first = sorted(everyone, key=lambda client: (client not in record.faulty_clients, -summed[client], int(client)))
    return sorted(first[:most], key=int)


def _shown_classes(traced: Sequence[TracedInput], num_classes: int) -> list[int]:
    predicted: defaultdict[int, int] = defaultdict(int)
    for t in traced:
        predicted[t.predicted] += 1
    return sorted(sorted(range(num_classes), key=lambda c: (-predicted[c], c))[:MOST_CLASSES])
