"""Who stands out over a run's rounds, whatever for: the rows of stand_outs.csv, and what they come to."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from tracefl.provenance import StandOut, StandOuts
from tracefl.questions.suspects import Row
from tracefl.records.result import RoundResult


def add_round(added: StandOuts, server_round: int, suspicions: Mapping[str, Sequence[float]]) -> tuple[Row, ...]:
    """Add a round to those before it.

    Args:
        added: The rounds before.
        server_round: The round.
        suspicions: Client id to how far it stands out for each class; none where the round does not count.

    Returns:
        A row of stand_outs.csv for each of these clients.
    """
    return tuple(_row(added, server_round, each) for each in added.add(server_round, suspicions))


def rows_of(added: StandOuts, server_round: int, clients: Collection[str]) -> tuple[Row, ...]:
    """Return where a round's clients stand after it, whether or not it counts: rows like those of stand_outs.csv.

    Args:
        added: The rounds up to this one.
        server_round: The round.
        clients: Its clients; those of which nothing is known have no row.
    """
    return tuple(_row(added, server_round, each) for each in added.standing if each.client_id in clients)


def _row(added: StandOuts, server_round: int, each: StandOut) -> Row:
    return {
        "round": server_round,
        "client": each.client_id,
        "toward": each.toward,
        "total": each.total,
        "since": each.since,
        "honest_share": each.honest_share,
        "named": added.is_named(each),
    }


def rows_again(results: Iterable[RoundResult], false_alarms: float) -> list[Row]:
    """Return what the rounds' suspicions add up to, made again.

    Args:
        results: The rounds, in order.
        false_alarms: As in ``StandOuts``.
    """
    added = StandOuts(false_alarms)
    return [row for each in results for row in add_round(added, each.server_round, each.class_suspicions)]


def summarize_stand_outs(results: Sequence[RoundResult]) -> Row:
    """Return what a run's rounds come to: the entry ``stand_outs`` of results.json.

    Returns:
        ``rounds``: how many rounds count. ``named``: of each client that reached the bar its row with the highest
        total, the one that stands out most first. ``most``: the row with the highest total, named or not; None without
        rounds.
    """
    rows = [row for result in results for row in result.stand_outs]
    highest: dict[str, Mapping[str, Any]] = {}
    for row in rows:
        if row["client"] not in highest or row["total"] > highest[row["client"]]["total"]:
            highest[row["client"]] = row
    ordered = sorted(highest.values(), key=lambda row: (-row["total"], int(row["client"])))
    return {
        "rounds": sum(bool(result.stand_outs) for result in results),
        "named": [dict(row) for row in ordered if row["named"]],
        "most": dict(ordered[0]) if ordered else None,
    }
