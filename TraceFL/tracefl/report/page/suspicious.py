"""Which rounds to look at first, with the reasons that the page shows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tracefl.common.words import percent
from tracefl.questions.suspects import PROVENANCE
from tracefl.records.result import RoundResult

DROP = 0.05
"""Fall of the global accuracy from one recorded round to the next that makes a round suspicious, as a fraction."""

MEANING = (
    "localization accuracy is at or below its chance level (and chance is below 100%)",
    f"global accuracy is {100 * DROP:g} or more percentage points below that of the round before",
    "a client was dropped from the round: it failed, or sent what cannot be used",
    "a client was capped: its update or its weight was out of bounds, and was brought down to them",
    "estimates were in doubt, and all clients were left out exactly",
)
MEANING_OF_FAULT = "inputs are mispredicted in the way that the fault brings about, while a faulty client takes part"


@dataclass(frozen=True)
class SuspiciousRound:
    """A round with at least one reason to look at it.

    Attributes:
        server_round: The round, from 1.
        reasons: The reasons, each a phrase.
    """

    server_round: int
    reasons: tuple[str, ...]


def suspicious_rounds(rounds: Sequence[RoundResult]) -> list[SuspiciousRound]:
    """Return the rounds with a reason, those with most reasons first."""
    before: Mapping[str, Any] | None = None
    found = []
    for result in rounds:
        reasons = tuple(_reasons(result, before))
        if reasons:
            found.append(SuspiciousRound(result.server_round, reasons))
        before = result.row
    return sorted(found, key=lambda each: (-len(each.reasons), each.server_round))


def reading_order(rounds: Sequence[RoundResult]) -> list[int]:
    """Return all rounds by interest: the suspicious ones, then the others, latest first."""
    first = [each.server_round for each in suspicious_rounds(rounds)]
    return [*first, *sorted({result.server_round for result in rounds} - set(first), reverse=True)]


def _reasons(result: RoundResult, before: Mapping[str, Any] | None) -> list[str]:
    row, reasons = result.row, []
    for suspects in result.suspects:
        if suspects["rule"] == PROVENANCE and suspects["inputs"] and suspects["faulty_clients"]:
            reasons.append(_named_first(suspects))
    localization, chance = row["localization_accuracy"], row["chance_accuracy"]
    if localization is not None and chance is not None and localization <= chance < 1:
        reasons.append(f"localization {percent(localization)} at or below chance, {percent(chance)}")
    fall = 0.0 if before is None else _number(before["global_accuracy"]) - _number(row["global_accuracy"])
    if before is not None and round(fall, 9) >= DROP:
        reasons.append(
            f"global accuracy fell from {percent(before['global_accuracy'])} to {percent(row['global_accuracy'])}"
        )
    for what, clients in (("dropped", result.dropped), ("capped", result.capped)):
        if clients:
            named = [f"{client} ({reason})" for client, reason in sorted(clients.items())]
            more = f" and {len(named) - 3} more" if len(named) > 3 else ""
            reasons.append(f"{what}: client {', '.join(named[:3])}{more}")
    if result.doubt:
        reasons.append(f"all clients were left out exactly: {result.doubt}")
    return reasons


def _named_first(suspects: Mapping[str, Any]) -> str:
    """Return which client provenance names for all of a round's mispredictions together."""
    first = str(suspects["ranking"]).partition(":")[0]
    right = suspects["whole_localization"]
    truth = "" if right is None else ", which is faulty" if right == 1 else ", which is honest" if right == 0 else ""
    many = "1 misprediction" if suspects["inputs"] == 1 else f"{suspects['inputs']} mispredictions"
    return f"{many} with a faulty client taking part: over them all provenance names client {first} first{truth}"


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)
