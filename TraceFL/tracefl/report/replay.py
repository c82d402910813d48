"""A run with and without some of its clients, as rows of a CSV, as JSON, and as tables in the terminal."""

from collections.abc import Iterator, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from tracefl.common.words import percent
from tracefl.learning.measures import Measures
from tracefl.questions.replay import Replay, ReplayedRound
from tracefl.report.class_axis import short_names
from tracefl.report.console import say_files, say_wrapped
from tracefl.report.explanation import class_words

ALL = "all"
CLASSES_SHOWN = 20
REPLAY_COLUMNS = (
    *("round", "class", "class_name", "accuracy", "accuracy_without", "attack_success", "attack_success_without"),
    *("clients", "clients_removed", "how", "exact"),
)
"""Per round, a row over all classes (``class`` is all), then one per class. ``clients``: those of the replayed round,
``clients_removed``: those of the run's round without whom it is averaged. Fractions 0 to 1; empty where unknown."""


def replay_rows(replay: Replay) -> Iterator[dict[str, Any]]:
    """Yield the rows of the CSV."""
    for r in replay.rounds:
        which = {
            "round": r.server_round,
            "clients": " ".join(r.clients),
            "clients_removed": " ".join(r.removed),
            "how": replay.how,
            "exact": r.is_exact,
        }
        yield {
            **which,
            "class": ALL,
            "accuracy": r.before.accuracy,
            "accuracy_without": r.after.accuracy,
            "attack_success": r.before.attack_success,
            "attack_success_without": r.after.attack_success,
        }
        for number, (before, after) in enumerate(by_class(r)):
            name = replay.label_names[number]
            yield {**which, "class": number, "class_name": name, "accuracy": before, "accuracy_without": after}


def by_class(replayed: ReplayedRound) -> list[tuple[float | None, float | None]]:
    """Return each class's accuracy with and without the clients, None for a class without examples."""
    return list(zip(replayed.before.class_accuracy, replayed.after.class_accuracy, strict=True))


def as_json(replay: Replay) -> dict[str, Any]:
    """Return the whole replay in JSON's types."""

    def numbers(m: Measures) -> dict[str, Any]:
        return {"accuracy": m.accuracy, "attack_success": m.attack_success, "class_accuracy": list(m.class_accuracy)}

    return {
        "how": replay.how,
        "without_from": replay.without_from,
        "without": list(replay.without),
        "fault": replay.fault,
        "classes": list(replay.label_names),
        "notes": list(replay.notes),
        "trained_run": replay.folder,
        "rounds": [
            {
                "round": r.server_round,
                "clients": list(r.clients),
                "clients_removed": list(r.removed),
                "exact": r.is_exact,
                "with": numbers(r.before),
                "without": numbers(r.after),
            }
            for r in replay.rounds
        ],
    }


def show(console: Console, replay: Replay, written: Sequence[str]) -> None:
    """Print the rounds, the classes after the last of them, and what a reader needs to know."""
    who = f"{replay.name} without {replay.clients_words}"
    say_wrapped(console, f"{who} from round {replay.without_from}, {replay.how_words}")
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    attack = ("attack success\nwith", "\nwithout") if replay.has_attack else ()
    for heading in ("round", "clients", "removed", "global accuracy\nwith", "\nwithout", *attack):
        table.add_column(heading, justify="right", no_wrap=True)
    for r in replay.rounds:
        success = (percent(r.before.attack_success), percent(r.after.attack_success)) if attack else ()
        table.add_row(
            *(str(r.server_round), str(len(r.clients)), str(len(r.removed))),
            *(percent(r.before.accuracy), percent(r.after.accuracy), *success),
        )
    console.print(table)
    _show_classes(console, replay)
    for line in replay.notes:
        say_wrapped(console, line)
    say_files(console, "written", written)


def _show_classes(console: Console, replay: Replay) -> None:
    """Print the classes after the last round; if there are many, those whose accuracy changes most."""
    last = replay.rounds[-1]
    rows = list(enumerate(by_class(last)))
    rows.sort(key=lambda row: -_change(row[1]))
    title = f"accuracy of each class after round {last.server_round}"
    if len(rows) > CLASSES_SHOWN:
        title += f", the {CLASSES_SHOWN} of {len(rows)} that change most"
    say_wrapped(console, title)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    names = short_names(replay.label_names)
    for heading in ("class", "with", "without"):
        table.add_column(heading, justify="left" if heading == "class" else "right", no_wrap=True)
    for number, (before, after) in sorted(rows[:CLASSES_SHOWN]):
        table.add_row(class_words(number, names), percent(before), percent(after))
    console.print(table)


def _change(accuracies: tuple[float | None, float | None]) -> float:
    before, after = accuracies
    return -1.0 if before is None or after is None else abs(after - before)
