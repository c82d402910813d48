"""Clients by classes: how far each stands out as one that was taught that things are of a class, over all rounds."""

from collections.abc import Sequence
from dataclasses import dataclass

from tracefl.provenance import StandOuts
from tracefl.report.page.heat import LEAST_CLIENTS, MOST_CLASSES, Cell, are_long
from tracefl.report.page.record import RunRecord


@dataclass(frozen=True)
class StandOutRow:
    """A client's cells, one for each class that is shown.

    Attributes:
        name: The client.
        note: ``named`` where it reaches the bar.
        cells: Its sums after the last round.
    """

    name: str
    note: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class StandOutMap:
    """The map.

    Attributes:
        classes: (number, name) of the classes that are shown.
        rows: The clients that are shown, the one that stands out most first.
        rounds: How many rounds are added up.
        bar: The sum from which on a client is named.
        false_alarms: Share of honest runs in which somebody reaches it.
        most: The sum where the colour is deepest.
        not_shown: What is not shown, one line each.
    """

    classes: tuple[tuple[int, str], ...]
    rows: tuple[StandOutRow, ...]
    rounds: int
    bar: float
    false_alarms: float
    most: float
    not_shown: tuple[str, ...]

    @property
    def has_long_names(self) -> bool:
        """The classes' names do not fit above their columns."""
        return are_long(self.classes)


def stand_out_map(record: RunRecord) -> StandOutMap | None:
    """Return a run's map; None where no round counts."""
    settings = record.settings.provenance
    counted = [result for result in record.rounds if result.class_suspicions]
    if settings is None or not counted:
        return None
    added = StandOuts(settings.false_alarms)
    for result in counted:
        added.add(result.server_round, result.class_suspicions)
    clients = [each.client_id for each in sorted(added.standing, key=lambda each: (-each.total, int(each.client_id)))]
    sums = added.sums
    names = record.run.label_names
    highest = [max(sums[client][c] for client in clients) for c in range(len(names))]
    classes = sorted(sorted(range(len(names)), key=lambda c: (-highest[c], c))[:MOST_CLASSES])
    most = max(added.bar, *highest)
    named = {each.client_id for each in added.named}
    rows = tuple(
        StandOutRow(
            client,
            "named" if client in named else "",
            tuple(_cell(client, names[c], sums[client][c], most) for c in classes),
        )
        for client in clients[:LEAST_CLIENTS]
    )
    return StandOutMap(
        tuple((c, names[c]) for c in classes),
        rows,
        len(counted),
        added.bar,
        settings.false_alarms,
        most,
        tuple(_not_shown(len(rows), len(clients), len(classes), names)),
    )


def _cell(client: str, name: str, total: float, most: float) -> Cell:
    words = f"client {client}, {name}: {total:.2f} standard deviations, added up"
    return Cell(f"{total:.1f}" if total >= 0.05 else "", total / most, words)


def _not_shown(rows: int, clients: int, classes: int, names: Sequence[str]) -> list[str]:
    shown = ((rows, clients, "clients"), (classes, len(names), "classes"))
    return [f"{some} of {of} {what} are shown: those that stand out most" for some, of, what in shown if some < of]
