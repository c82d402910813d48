"""Decides whether to act against a client, from how far it stands out and the accuracy gained without it."""

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
class _Gain:
    """The accuracy gained without a client in a round, a fraction."""

    server_round: int
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
        self._windows: dict[str, list[_Gain]] = {}

    def add_round(
        self,
        server_round: int,
        clients: Sequence[str],
        stand_outs: Iterable[Mapping[str, Any]],
        gain_without: Callable[[str], float],
        able: Collection[str],
    ) -> tuple[Row, ...]:
        """Decide about the clients of a round.

        Args:
            server_round: The round.
            clients: Its participants.
            stand_outs: Where its participants stand after it, as in stand_outs.csv; of a client without a row nothing
                is known.
            gain_without: Returns the accuracy on the server's examples gained without a client, a fraction.
            able: Clients that could take part if nothing had been decided.

        Returns:
            A row of mitigation.csv for each participant; no rows before ``from_round``, or of a client alone.
        """
        if server_round < self.settings.from_round or len(clients) < 2:
            return ()
        standing = {row["client"]: row for row in stand_outs}
        rows = [self._row(c, _Gain(server_round, gain_without(c)), standing.get(c, {})) for c in clients]
        for row in sorted(rows, key=lambda row: (-(row["total"] or 0), int(row["client"]))):
            self._decide(row, able)
        return tuple(rows)

    def restore(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Take up the decisions of a recorded round."""
        for row in rows:
            self._remember(row["client"], _Gain(row["round"], row["gain"]))
            self._apply(row)

    def _row(self, client: str, gain: _Gain, standing: Mapping[str, Any]) -> Row:
        window = self._remember(client, gain)
        return dict.fromkeys(MITIGATION_COLUMNS) | {
            "round": gain.server_round,
            "client": client,
            **{name: standing.get(name) for name in ("toward", "total", "named")},
            "gain": gain.gain,
            "window_rounds": " ".join(str(each.server_round) for each in window),
            "window_gain": median_low(each.gain for each in window),
            "decision": "",
        }

    def _remember(self, client: str, gain: _Gain) -> list[_Gain]:
        window = [*self._windows.get(client, ()), gain][-self.settings.window :]
        self._windows[client] = window
        return window

    def _is_due(self, row: Row) -> bool:
        """Return whether a client stands out and gains enough over a full window, or gains what is enough alone."""
        settings, gain = self.settings, row["window_gain"]
        if len(self._windows[row["client"]]) < settings.window:
            return False
        if settings.gain_alone is not None and _reaches(gain, settings.gain_alone):
            return True
        return bool(row["named"]) and _reaches(gain, settings.gain)

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
        rounds = " ".join(f"{each.server_round}:{each.gain:+.2%}" for each in self._windows[row["client"]])
        stands = "it does not stand out"
        if row["named"]:
            stands = f"it stands out for class {row['toward']} (a sum of {row['total']:.2f})"
        alone = "" if self.settings.gain_alone is None else f", mitigate.gain_alone={self.settings.gain_alone:g}"
        return (
            f"client {row['client']} {done}: {stands}, and {row['window_gain']:+.2%} accuracy is gained without it, "
            f"the median of rounds {rounds}; asked are mitigate.gain={self.settings.gain:g} of who stands out{alone}"
        )


def _reaches(value: float, least: float) -> bool:
    """Return whether ``value >= least`` up to rounding: 14 of 50 reach 28 %."""
    return value >= least - 1e-9
