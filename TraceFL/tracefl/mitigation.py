"""What is done about clients that mispredictions are traced to: ``mitigate=exclude`` and ``mitigate=downweight``.

After a round, each of its mispredictions that were traced names one client: the one with the highest contribution. With
R_k the last ``window`` rounds in which client k took part and mispredictions were traced, M_t the mispredictions traced
in round t and N_kt those of them that name k,

    s_k = sum of N_kt over R_k / sum of M_t over R_k

is the share that is held against ``share``. All mispredictions of the server's examples count, as one sees them who
does not know whether anything is wrong, let alone what: the truth about an injected fault is in the summary alone.
"""

import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tracefl.choice_keys import ChoiceKeys
from tracefl.errors import ConfigError
from tracefl.participation import Participation
from tracefl.provenance import TracedInput
from tracefl.suspects import Row

log = logging.getLogger(__name__)

_NONE, _EXCLUDE, _DOWNWEIGHT = "none", "exclude", "downweight"
_RESTORE, _TOO_FEW = "restore", "too few left"
_RULE = ("share", "window", "from_round", "min_mispredictions")
_KEYS = ChoiceKeys("mitigate", {_NONE: (), _EXCLUDE: _RULE, _DOWNWEIGHT: (*_RULE, "factor")})

MITIGATION_COLUMNS = (
    "round",
    "client",
    "mispredictions",
    "named",
    "window_rounds",
    "window_mispredictions",
    "window_named",
    "share",
    "decision",
    "from_round",
    "factor",
)
"""A row is a participant of a round with traced mispredictions. ``mispredictions`` and ``named``: of the round;
``window_``: of its last rounds, this one included. ``decision``: exclude, downweight, restore, or too few left; empty
where nothing changes. ``from_round``: first round in which it holds. ``factor``: of the client's weight, 1 restores."""


@dataclass(frozen=True)
class MitigationSettings:
    """The keys of ``conf/mitigate/*.yaml``.

    Attributes:
        name: ``exclude`` or ``downweight``.
        share: Share of its window's mispredictions that must name a client, in (0, 1].
        window: Rounds of a client that are looked back on, at least 1.
        from_round: First round in which anything is done, from 1.
        min_mispredictions: Least mispredictions of a window that decides anything, at least 1.
        factor: Of the weight of a client that is named, in (0, 1); None where it is excluded.
    """

    name: str
    share: float
    window: int
    from_round: int
    min_mispredictions: int
    factor: float | None


@dataclass(frozen=True)
class _Round:
    """A client's part in the mispredictions of a round."""

    server_round: int
    mispredictions: int
    named: int


class Mitigation:
    """Decides after each round, and keeps ``participation`` as decided.

    Args:
        settings: The rule.
        participation: Who takes part and how much each weighs; changed here.
        least_clients: Clients that must be left; an exclusion that would leave fewer is not made.
    """

    def __init__(self, settings: MitigationSettings, participation: Participation, least_clients: int) -> None:
        self.settings = settings
        self._participation = participation
        self._least_clients = least_clients
        self._windows: dict[str, list[_Round]] = {}

    def add_round(
        self, server_round: int, clients: Sequence[str], traced_inputs: Iterable[TracedInput], able: Collection[str]
    ) -> tuple[Row, ...]:
        """Look at a round's mispredictions and decide.

        Args:
            server_round: The round.
            clients: Its participants.
            traced_inputs: Its traced inputs, all its mispredictions among them; correct predictions are passed over.
            able: Clients that could take part but for what was decided.

        Returns:
            A row of mitigation.csv a participant; none without mispredictions, which say nothing of anybody.
        """
        counts = Counter(traced.traced_client for traced in traced_inputs if traced.predicted != traced.label)
        if not counts:
            return ()
        rows = {client: self._look(client, server_round, counts) for client in clients}
        if server_round + 1 >= self.settings.from_round:
            suspected = sorted(rows, key=lambda client: (-rows[client]["share"], int(client)))
            for client in suspected:
                self._decide(rows[client], able)
        return tuple(rows.values())

    def restore(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Take up the rows of a recorded round, as they were decided."""
        for row in rows:
            self._remember(row["client"], _Round(row["round"], row["mispredictions"], row["named"]))
            self._apply(row)

    def _look(self, client: str, server_round: int, counts: Counter[str]) -> Row:
        mispredictions = counts.total()
        window = self._remember(client, _Round(server_round, mispredictions, counts[client]))
        of_window, named = sum(each.mispredictions for each in window), sum(each.named for each in window)
        return dict.fromkeys(MITIGATION_COLUMNS) | {
            "round": server_round,
            "client": client,
            "mispredictions": mispredictions,
            "named": counts[client],
            "window_rounds": " ".join(str(each.server_round) for each in window),
            "window_mispredictions": of_window,
            "window_named": named,
            "share": named / of_window,
            "decision": "",
        }

    def _remember(self, client: str, part: _Round) -> list[_Round]:
        window = [*self._windows.get(client, ()), part][-self.settings.window :]
        self._windows[client] = window
        return window

    def _decide(self, row: Row, able: Collection[str]) -> None:
        """Decide about a client; what is decided is in its row, the log and the participation."""
        settings, client = self.settings, row["client"]
        if (
            len(self._windows[client]) < settings.window
            or row["window_mispredictions"] < settings.min_mispredictions
            or client in self._participation.excluded
        ):
            return
        is_named, is_light = row["share"] >= settings.share, client in self._participation.factors
        if settings.name == _EXCLUDE and is_named:
            left = set(able) - self._participation.excluded - {client}
            row["decision"] = _EXCLUDE if len(left) >= self._least_clients else _TOO_FEW
        elif settings.name == _DOWNWEIGHT and is_named != is_light:
            row |= (
                {"decision": _DOWNWEIGHT, "factor": settings.factor}
                if is_named
                else {"decision": _RESTORE, "factor": 1}
            )
        if row["decision"]:
            row["from_round"] = row["round"] + 1
            log.warning("round=%d mitigate: %s", row["round"], self._words(row))
            self._apply(row)

    def _apply(self, row: Mapping[str, Any]) -> None:
        client = row["client"]
        if row["decision"] == _EXCLUDE:
            self._participation.excluded.add(client)
        elif row["decision"] == _DOWNWEIGHT:
            self._participation.factors[client] = row["factor"]
        elif row["decision"] == _RESTORE:
            self._participation.factors.pop(client, None)

    def _words(self, row: Row) -> str:
        done = {
            _EXCLUDE: f"is sampled no more from round {row['from_round']} on",
            _DOWNWEIGHT: f"weighs {row['factor']} times its part from round {row['from_round']} on",
            _RESTORE: f"weighs its whole part again from round {row['from_round']} on",
            _TOO_FEW: f"is not excluded: fewer than {self._least_clients} clients would be left",
        }[row["decision"]]
        return (
            f"client {row['client']} {done}; named in {row['window_named']} of {row['window_mispredictions']} "
            f"mispredictions ({row['share']:.1%}) of rounds {row['window_rounds']}, mitigate.share is "
            f"{self.settings.share:.1%}"
        )


def summarize_mitigation(
    rows: Iterable[Mapping[str, Any]], is_faulty: Callable[[str, int], bool] | None
) -> list[dict[str, Any]]:
    """Return the clients that something was done about, for results.json.

    Args:
        rows: Of mitigation.csv.
        is_faulty: Whether a client was faulty in a round; None where nobody knows.

    Returns:
        An entry a decision.
    """
    return [
        {key: row[key] for key in ("client", "decision", "from_round", "share")}
        | {"faulty": None if is_faulty is None else is_faulty(row["client"], row["round"])}
        for row in rows
        if row["decision"]
    ]


def read_mitigation(group: Mapping[str, Any]) -> MitigationSettings | None:
    """Turn the group ``mitigate`` into settings, None where nothing is done.

    Raises:
        ConfigError: A key is missing, unknown, or not read by this choice.
    """
    _KEYS.refuse_unknown(group, MitigationSettings.__dataclass_fields__)
    _KEYS.check(group["name"], {key: value for key, value in group.items() if key != "name"})
    return None if group["name"] == _NONE else MitigationSettings(**group)


def check_mitigation(group: Mapping[str, Any], provenance: Mapping[str, Any]) -> None:
    """Refuse a mitigation by mispredictions that are not traced, or whose trace blames nobody.

    Raises:
        ConfigError: The two do not go together.
    """
    if group["name"] == _NONE:
        return
    if not provenance["enabled"]:
        raise ConfigError(
            f"mitigate={group['name']} acts on traced mispredictions, and provenance=off traces none; give "
            "provenance=fault, or mitigate=none"
        )
    if provenance["target"] == "label":
        raise ConfigError(
            f"mitigate={group['name']} needs contributions to what is predicted, got provenance.target=label; give "
            "provenance.target=centered"
        )
