"""The progress of a script's runs, and an estimate of the time left."""

from collections.abc import Sequence
from dataclasses import asdict
from statistics import fmean
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tracefl.common.words import counted, duration
from tracefl.jobs.plan import Plan
from tracefl.records.settings import Settings
from tracefl.records.status import RunState, read_run_state

STATES = ("done", "running", "failed", "stopped", "to do")
_COLOURS = {"done": "green", "running": "cyan", "failed": "red", "stopped": "yellow", "to do": "dim"}


def show_status(plans: Sequence[Plan], console: Console) -> None:
    """Print every run's state and time left, and a line for all of them."""
    states, left = read_states(plans)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in ("", "run", "state", "rounds", "took", "left", "why it failed"):
        table.add_column(
            heading, overflow="fold", justify="right" if heading in ("", "rounds", "took", "left") else "left"
        )
    for plan, state, seconds in zip(plans, states, left, strict=True):
        table.add_row(
            str(plan.job.index),
            plan.job.label,
            Text(state.state, style=_COLOURS[state.state]),
            f"{state.rounds_done}/{state.num_rounds}",
            duration(state.seconds),
            duration(seconds),
            state.error or "",
        )
    console.print(table)
    console.print(summary(states, left), soft_wrap=True, highlight=False)


def states_as_json(plans: Sequence[Plan]) -> list[dict[str, Any]]:
    """Return every run's state in JSON's types; seconds, None where nothing is known."""
    states, left = read_states(plans)
    return [
        {"index": plan.job.index, "run": str(plan.folder), **asdict(state), "seconds_left": seconds}
        for plan, state, seconds in zip(plans, states, left, strict=True)
    ]


def read_states(plans: Sequence[Plan]) -> tuple[list[RunState], list[float | None]]:
    """Return every run's state, and its estimated time left in seconds; None where there is no estimate."""
    states = [read_run_state(plan.folder, plan.settings.num_rounds) for plan in plans]
    return states, seconds_left([plan.settings for plan in plans], states)


def summary(states: Sequence[RunState], left: Sequence[float | None]) -> str:
    """Return a one-line summary of all runs."""
    counts = ", ".join(f"{sum(s.state == name for s in states)} {name}" for name in STATES)
    known = [seconds for seconds in left if seconds is not None]
    unknown = len(left) - len(known)
    time_left = duration(sum(known)) if len(known) > sum(s.state == "done" for s in states) or not unknown else "-"
    more = f", and {counted(unknown, 'run')} that nothing is known of" if unknown and time_left != "-" else ""
    return f"{counted(len(states), 'run')}: {counts}; left, one after the other: {time_left}{more}"


def seconds_left(settings: Sequence[Settings], states: Sequence[RunState]) -> list[float | None]:
    """Estimate each run's time left: its own estimate, else from the mean of finished runs with its model and rounds.

    Returns:
        Seconds, 0 for a run that is done, None where nothing is known yet.
    """
    kinds = [(each.model.name, each.num_rounds) for each in settings]
    took: dict[tuple[str, int], list[float]] = {}
    for kind, state in zip(kinds, states, strict=True):
        if state.state == "done" and state.seconds is not None:
            took.setdefault(kind, []).append(state.seconds)
    left: list[float | None] = []
    for kind, state in zip(kinds, states, strict=True):
        if state.state == "done":
            left.append(0.0)
        elif state.seconds_left is not None:
            left.append(state.seconds_left)
        else:
            left.append(fmean(took[kind]) if kind in took else None)
    return left
