"""Decides whether to act against a client, from the mispredictions traced to it and the accuracy gained without it."""

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median_low
from typing import Any

from tracefl.federation.participation import Participation
from tracefl.questions.suspects import Row
from tracefl.records.settings import DownweightSettings, Mitigate
from tracefl.records.tables import MITIGATION_COLUMNS

log = logging.getLogger(__name__)

EXCLUDE, DOWNWEIGHT, RESTORE, TOO_FEW = "exclude", "downweight", "restore", "too few left"


@dataclass(frozen=True)
class _Round:
    """A client's part in the mispredictions of a round."""

    server_round: int
    mispredictions: int
    named: int
    gain: float


class Mitigation:
    """Decides after each round, and applies the decisions to ``participation``.

    Args:
        settings: The rule.
        participation: Changed by the decisions.
        least_clients: Clients that must remain; an exclusion that would leave fewer is not made.
    """

    def __init__(self, settings: Mitigate, participation: Participation, least_clients: int) -> None:
        self.settings = settings
        self.participation = participation
        self._least_clients = least_clients
        self._windows: dict[str, list[_Round]] = {}

    def add_round(
        self,
        server_round: int,
        clients: Sequence[str],
        names: Sequence[str | None],
        gain_without: Callable[[str], float],
        able: Collection[str],
    ) -> tuple[Row, ...]:
        """Decide about the clients of a round by its mispredictions.

        Args:
            server_round: The round.
            clients: Its participants.
            names: The client named by each traced misprediction; None where nobody carries it.
            gain_without: Returns the accuracy on the server's examples gained without a client, a fraction.
            able: Clients that could take part if nothing had been decided.

        Returns:
            A row of mitigation.csv for each participant; no rows where the round is no evidence: it comes before
            ``from_round``, has too few mispredictions, or so few participants that chance alone reaches the share.
        """
        settings = self.settings
        too_early = server_round < settings.from_round
        by_chance = len(clients) < 2 or settings.share * len(clients) < 1
        if too_early or by_chance or len(names) < settings.min_mispredictions:
            return ()
        rows = {}
        for client in clients:
            named = sum(name == client for name in names)
            rows[client] = self._row(client, _Round(server_round, len(names), named, gain_without(client)))
        for row in sorted(rows.values(), key=lambda row: (-row["named"], int(row["client"]))):
            self._decide(row, able)
        return tuple(rows.values())

    def restore(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Take up the decisions of a recorded round."""
        for row in rows:
            self._remember(row["client"], _Round(row["round"], row["mispredictions"], row["named"], row["gain"]))
            self._apply(row)

    def _row(self, client: str, part: _Round) -> Row:
        window = self._remember(client, part)
        return dict.fromkeys(MITIGATION_COLUMNS) | {
            "round": part.server_round,
            "client": client,
            "mispredictions": part.mispredictions,
            "named": part.named,
            "gain": part.gain,
            "window_rounds": " ".join(str(each.server_round) for each in window),
            "window_mispredictions": sum(each.mispredictions for each in window),
            "window_named": sum(each.named for each in window),
            "window_gain": median_low(each.gain for each in window),
            "decision": "",
        }

    def _remember(self, client: str, part: _Round) -> list[_Round]:
        window = [*self._windows.get(client, ()), part][-self.settings.window :]
        self._windows[client] = window
        return window

    def _is_due(self, row: Row) -> bool:
        """Return whether a client reaches the share and the gain over a full window, or the gain that is enough."""
        settings, gain = self.settings, row["window_gain"]
        if len(self._windows[row["client"]]) < settings.window:
            return False
        if settings.gain_alone is not None and _reaches(gain, settings.gain_alone):
            return True
        is_named = _reaches(row["window_named"], settings.share * row["window_mispredictions"])
        return is_named and _reaches(gain, settings.gain)

    def _decide(self, row: Row, able: Collection[str]) -> None:
        """Decide about a client; record the decision in its row, log it and apply it."""
        settings, client = self.settings, row["client"]
        is_due, is_light = self._is_due(row), client in self.participation.factors
        if not isinstance(settings, DownweightSettings) and is_due:
            left = set(able) - self.participation.excluded - {client}
            row["decision"] = EXCLUDE if len(left) >= self._least_clients else TOO_FEW
        elif isinstance(settings, DownweightSettings) and is_due and not is_light:
            row |= {"decision": DOWNWEIGHT, "factor": settings.factor}
        elif isinstance(settings, DownweightSettings) and is_light and not is_due:
            row |= {"decision": RESTORE, "factor": 1}
        if row["decision"]:
            row["from_round"] = row["round"] + 1
            log.warning("round=%d mitigate: %s", row["round"], self._words(row))
            self._apply(row)

    def _apply(self, row: Mapping[str, Any]) -> None:
        client = row["client"]
        if row["decision"] == EXCLUDE:
            self.participation.excluded.add(client)
        elif row["decision"] == DOWNWEIGHT:
            self.participation.factors[client] = row["factor"]
        elif row["decision"] == RESTORE:
            self.participation.factors.pop(client, None)

    def _words(self, row: Row) -> str:
        """Return a decision and its evidence in one line."""
        done = {
            EXCLUDE: f"is no longer drawn from round {row['from_round']} on",
            DOWNWEIGHT: f"weighs {row['factor']} times its part from round {row['from_round']} on",
            RESTORE: f"is back at its full weight from round {row['from_round']} on",
            TOO_FEW: f"is not excluded: fewer than {self._least_clients} clients would be left",
        }[row["decision"]]
        rounds = " ".join(
            f"{r.server_round}:{r.named}/{r.mispredictions}:{r.gain:+.2%}" for r in self._windows[row["client"]]
        )
        alone = "" if self.settings.gain_alone is None else f", or mitigate.gain_alone={self.settings.gain_alone:g}"
        return (
            f"client {row['client']} {done}; named in {row['window_named']} of {row['window_mispredictions']} "
            f"mispredictions, {row['window_gain']:.2%} accuracy gained without it, the median of rounds (round:named/"
            f"mispredictions:gained) {rounds}; asked are mitigate.share={self.settings.share:g} and "
            f"mitigate.gain={self.settings.gain:g}{alone}"
        )


def _reaches(value: float, least: float) -> bool:
    """Return whether ``value >= least`` up to rounding: 14 of 50 reach 28 %."""
    return value >= least - 1e-9
